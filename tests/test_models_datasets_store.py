"""Archives that are none, and archives that mean harm."""

from __future__ import annotations

import struct

import pytest
from dataset_files import SP_SW_FILES, make_zip, sp_sw_csv, write

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


UTF8_NAME = make_zip({"s1_1_swé.csv": b"x"})
"""Its member's name stands in the file twice: before the member, and in the directory at the end."""


@pytest.mark.parametrize("times", [1, 2])
def test_names_that_are_no_text(tmp_path, times):
    (tmp_path / "a.zip").write_bytes(UTF8_NAME.replace("é".encode(), b"\xc3(", times))
    with pytest.raises(DatasetError, match=r"a\.zip"), store.Store(tmp_path / "a.zip") as opened:
        opened.entries[0].read()


def test_a_member_beyond_any_file(tmp_path):
    extra = struct.pack("<HHQ", 1, 8, 2**63)  # Zip64: where the member begins
    at = UTF8_NAME.index(b"PK\1\2")
    record = bytearray(UTF8_NAME[at : UTF8_NAME.index(b"PK\5\6")])
    record[30:32], record[42:46] = struct.pack("<H", len(extra)), b"\xff" * 4
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(record) + len(extra), at, 0)
    (tmp_path / "a.zip").write_bytes(UTF8_NAME[:at] + record + extra + end)
    with store.Store(tmp_path / "a.zip") as opened, pytest.raises(DatasetError, match=r"a\.zip:.*cannot be read"):
        opened.entries[0].read()


def test_a_member_without_a_name_is_none(tmp_path):
    files = make_zip({"!.csv": b"x", "s1_1_sw.csv": sp_sw_csv(0)})
    (tmp_path / "a.zip").write_bytes(files.replace(b"!.csv", b"\0.csv"))  # a name ends at a zero
    with store.Store(tmp_path / "a.zip") as opened:
        assert [entry.path for entry in opened.entries] == ["s1_1_sw.csv"]


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


def test_a_large_file_is_read_from_a_folder_only(tmp_path):
    """A small archive would fill the memory of whoever trains on it."""
    size = store.MAX_MEMBER_BYTES + 1
    head = b"t_s,acc_x,acc_y,acc_z\n"
    write(tmp_path / "folder", {"anna_1.csv": head.ljust(size)})
    (tmp_path / "a.zip").write_bytes(make_zip({"anna_1.csv": head.ljust(size)}))
    assert (tmp_path / "a.zip").stat().st_size < 2**17
    with store.Store(tmp_path / "folder") as opened:
        assert len(opened.entries[0].read()) == size
    with pytest.raises(DatasetError, match=r"anna_1\.csv: larger than 67108864 bytes; unpack the archive"):
        load("own", tmp_path / "a.zip")


def test_inner_archive_that_is_none(tmp_path):
    (tmp_path / "a.zip").write_bytes(make_zip({"in.zip": b"nonsense"}))
    with pytest.raises(DatasetError, match=r"in\.zip: not a usable zip"):
        detect(tmp_path / "a.zip")
