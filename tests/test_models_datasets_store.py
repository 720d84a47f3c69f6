"""Archives that are none, and archives that mean harm."""

from __future__ import annotations

import pytest
from dataset_files import SP_SW_FILES, make_zip, sp_sw_csv

from models.datasets import DATASETS, detect, load, store
from quantization.errors import DatasetError


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "an empty file"), (b"<html>", "a web page"), (make_zip(SP_SW_FILES)[:-500], "cut short")],
)
def test_not_a_zip(tmp_path, data, message):
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DatasetError, match=message):
        detect(tmp_path / "a.zip")


def test_damaged_member(tmp_path):
    data = bytearray(make_zip({"s1_1_sw.csv": sp_sw_csv(0)}))
    data[200:260] = bytes(60)
    (tmp_path / "a.zip").write_bytes(data)
    assert DATASETS["sp_sw_har"].subjects(tmp_path / "a.zip") == ("s1",)
    with pytest.raises(DatasetError, match=r"s1_1_sw\.csv: cannot be read"):
        load("sp_sw_har", tmp_path / "a.zip")


def test_member_that_climbs_out_stays_inside(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.zip").write_bytes(make_zip({"../../s1_1_sw.csv": sp_sw_csv(0)}))
    assert len(load("sp_sw_har", tmp_path / "in" / "a.zip")) == 1
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.zip", "in"]


def test_sizes_are_bounded(tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_bytes(make_zip({"in.zip": make_zip({"s1_1_sw.csv": sp_sw_csv(0)})}))
    assert load("sp_sw_har", tmp_path / "a.zip")
    with store.Store(tmp_path / "a.zip") as opened, pytest.raises(DatasetError, match="larger than 100 bytes"):
        opened.entries[0].read(100)
    monkeypatch.setattr(store, "MAX_INNER_ARCHIVE_BYTES", 100)
    with pytest.raises(DatasetError, match="larger than 100 bytes"):
        load("sp_sw_har", tmp_path / "a.zip")
    monkeypatch.setattr(store, "MAX_FILES", 0)
    with pytest.raises(DatasetError, match="files"):
        detect(tmp_path / "a.zip")
    with pytest.raises(DatasetError, match="files"):
        detect(tmp_path)


def test_inner_archive_that_is_none(tmp_path):
    (tmp_path / "a.zip").write_bytes(make_zip({"in.zip": b"nonsense"}))
    with pytest.raises(DatasetError, match=r"in\.zip: not a usable zip"):
        detect(tmp_path / "a.zip")
