"""The layouts of data sets that keep a recording in one file, and what malformed files of any layout are told."""

from __future__ import annotations

import time
import zipfile

import numpy as np
import pytest
from dataset_files import CASALE_FOLDER, SP_SW_FILES, casale_csv, case_of, shared, sp_sw_csv, wisdm_txt, write

from models.datasets import DATASETS, casale_chest, load, wisdm2019_watch
from quantization.errors import DatasetError


def test_units_and_times_of_sp_sw_har(tmp_path):
    head = SP_SW_FILES["README.md"]  # no header: refused below
    text = (
        "x_acc,y_acc,z_acc,x_gyro,y_gyro,z_gyro,timestamp,label\r\n9.80665,0,0,3.141592653589793,0,0,1000,WALKING\r\n"
        "0,0,0,0,0,0,990,SEATED\r\n\r\n1,0,0,0,0,0,1000,TURNING\r\n"
    )
    write(tmp_path, {"s7_1_sw.csv": text.encode(), "other/s8_1_sw.csv": head})
    (r,) = load("sp_sw_har", tmp_path, ["s7"])
    assert r.t_s.tolist() == [0, 0.01, 0.01]  # sorted; samples of one millisecond keep their order
    assert r.values[1, [0, 3]] == pytest.approx([1, 180])
    assert [r.labels[i] for i in r.label] == ["SEATED", "WALKING", "TURNING"]
    with pytest.raises(DatasetError, match=r"s8_1_sw\.csv:1: expected the header"):
        load("sp_sw_har", tmp_path)


def test_wisdm_runs_and_clock(tmp_path):
    rows = [("A", 100), ("A", 150), ("B", 50), ("A", 90), ("A", 140), ("A", 20), ("A", 70)]
    text = "".join(f"1700,{a},{t}000000,9.80665,0,-9.80665;\n" for a, t in rows)
    write(tmp_path, {"data_1700_accel_watch.txt": text.encode()})
    recordings = load("wisdm2019_watch", tmp_path)
    assert [(r.name, len(r.label)) for r in recordings] == [
        ("1700_walking", 2), ("1700_jogging", 1), ("1700_walking_2", 2), ("1700_walking_3", 2)
    ]  # fmt: skip
    assert recordings[0].t_s.tolist() == [0, 0.05]
    assert recordings[0].values[0] == pytest.approx([1, 0, -1])


def test_one_wisdm_subject_is_fast():
    path = shared(case_of("wisdm2019_watch"))
    began = time.perf_counter()
    load("wisdm2019_watch", path, ["1605"])
    assert time.perf_counter() - began < 2  # 0.1 s on a 2020 laptop; leaves room for a busy machine


def test_activity_key_is_the_published_one():
    with zipfile.ZipFile(shared(case_of("wisdm2019_watch"))) as archive:
        text = archive.read("wisdm-dataset/activity_key.txt").decode()
    published = dict(reversed(line.split(" = ")) for line in text.splitlines() if line)
    assert list(published) == list(wisdm2019_watch.ACTIVITIES)
    assert all(published[letter] in name for letter, name in wisdm2019_watch.ACTIVITIES.items())


def test_casale_counts_and_labels(tmp_path):
    offset = np.array(casale_chest.OFFSETS["7"])
    rows = ["0,2050,2043,2025,0", "1,2050,2412,2025,1", "1e+05,0,4095,2025,7", "1e+05,2050,2043,1656,2", ""]
    write(tmp_path, {f"{CASALE_FOLDER}/7.csv": "\n".join(rows).encode()})
    (r,) = load("casale_chest", tmp_path)
    assert r.t_s == pytest.approx(np.arange(4) / 52)  # the counter is no time
    assert r.label.tolist() == [-1, 0, 6, 1]
    assert r.values[2] == pytest.approx((np.array([0, 4095, 2025]) - offset) / casale_chest.COUNTS_PER_G)
    assert r.values[1] == pytest.approx([0, 1, 0], abs=0.002)
    assert r.values[3] == pytest.approx([0, 0, -1], abs=0.002)


def test_casale_subjects_without_offsets_are_not_read(tmp_path):
    write(tmp_path, {f"{CASALE_FOLDER}/{s}.csv": casale_csv("12") for s in ("12", "13")} | {"1.csv": b"x"})
    assert DATASETS["casale_chest"].subjects(tmp_path) == ("12",)


def test_published_chest_feels_one_g_where_it_keeps_still():
    path = shared(case_of("casale_chest"))
    for subject in ("2", "9", "10"):  # their sensors differ most
        (r,) = load("casale_chest", path, [subject])
        stretches = r.values[: len(r.values) // 104 * 104].reshape(-1, 104, 3)
        still = stretches[stretches.std(axis=1).max(axis=1) < 0.016].mean(axis=1)
        assert len(still) > 300
        g = np.linalg.norm(still, axis=1)
        assert np.percentile(np.abs(g - 1), 95) < 0.02


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "message"),
    [
        ("sp_sw_har", "s1_1_sw.csv", b"TURNING", b"FLYING", r"s1_1_sw\.csv:74: unknown label 'FLYING'"),
        ("sp_sw_har", "s1_1_sw.csv", b"1657533977910", b"12:30", r"s1_1_sw\.csv:12: malformed row"),
        ("sp_sw_har", "s1_1_sw.csv", b"9.80665", b"nan", r"s1_1_sw\.csv:2: values is not a finite"),
        ("sp_sw_har", "s1_1_sw.csv", b"9.80665", b"1e300", "not a finite number"),
        ("sp_sw_har", "s1_1_sw.csv", b"9.80665,", b"", r"s1_1_sw\.csv:2: malformed row"),
        ("sp_sw_har", "s1_1_sw.csv", b"SEATED", b"\xff\xfe", "not text"),
        ("wisdm2019_watch", "data_1_accel_watch.txt", b"1,D,", b"1,N,", r"watch\.txt:121: unknown activity 'N'"),
        ("wisdm2019_watch", "data_1_accel_watch.txt", b"1,S,", b"2,S,", r"watch\.txt:181: a sample of subject 2"),
        ("wisdm2019_watch", "data_1_accel_watch.txt", b"0.1,-0.2", b"0.1,", r"watch\.txt:1: malformed row"),
        ("wisdm2019_watch", "data_1_accel_watch.txt", b"9.9;", b"inf;", r"watch\.txt:2: values is not a finite"),
    ],
)
def test_malformed_rows_name_the_line(tmp_path, name, file, old, new, message):
    data = sp_sw_csv(0) if name == "sp_sw_har" else wisdm_txt("1")
    assert old in data
    write(tmp_path, {file: data.replace(old, new, 1)})
    with pytest.raises(DatasetError, match=message):
        load(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "message"),
    [
        ("casale_chest", f"{CASALE_FOLDER}/1.csv", b"\n30,", b"\n30,x", r"1\.csv:31: malformed row"),
        ("casale_chest", f"{CASALE_FOLDER}/1.csv", b"\n30,", b"\n30,1,", r"1\.csv:31: malformed row"),
        ("casale_chest", f"{CASALE_FOLDER}/1.csv", b"\n30,1", b"\n30,-1", r"1\.csv:31: a count is outside 0\.\.4095"),
        ("casale_chest", f"{CASALE_FOLDER}/1.csv", b"\n30,1", b"\n30,4", r"1\.csv:31: a count is outside 0\.\.4095"),
        ("casale_chest", f"{CASALE_FOLDER}/1.csv", b",0\n30,", b",8\n30,", r"1\.csv:30: the label is outside 0\.\.7"),
        ("weda_fall", "dataset/50Hz/D01/U01_R01_accel.csv", b"time_list", b"t", r"accel\.csv:1: expected the header"),
        ("weda_fall", "dataset/50Hz/D01/U01_R01_accel.csv", b"\n0.000,", b"\n0.0s,", r"accel\.csv:2: malformed row"),
        ("weda_fall", "dataset/50Hz/D01/U01_R01_gyro.csv", b"gyro_x", b"x", r"gyro\.csv:1: expected the header"),
        ("weda_fall", "dataset/50Hz/D01/U01_R01_gyro.csv", b"-0.3", b"nan", r"gyro\.csv:2: values is not a finite"),
        ("weda_fall", "dataset/50Hz/D01/U01_R01_gyro.csv", b"0.2", b"\xff", r"gyro\.csv: not text"),
        ("weda_fall", "dataset/fall_timestamps.csv", b"start_time", b"start", r"stamps\.csv:1: expected the header"),
        ("weda_fall", "dataset/fall_timestamps.csv", b",2.5", b",late", r"timestamps\.csv:2: malformed row"),
        ("weda_fall", "dataset/fall_timestamps.csv", b"F08/U01", b"F08/U02", r"0 rows for F08/U01_R01, expected 1"),
        ("wisdm2019_watch_6axis", "wisdm-dataset/raw/watch/gyro/data_1600_gyro_watch.txt", b"1600,D", b"1600,N",
         r"gyro_watch\.txt:121: unknown activity 'N'"),
        ("wisdm2019_watch_6axis", "wisdm-dataset/raw/watch/gyro/data_1600_gyro_watch.txt", b"-0.2", b"?",
         r"gyro_watch\.txt:1: malformed row"),
    ],
)  # fmt: skip
def test_malformed_files_name_the_line(tmp_path, name, file, old, new, message):
    data = case_of(name).files[file]
    assert old in data
    files = case_of(name).files | {file: data.replace(old, new, 1)}
    with pytest.raises(DatasetError, match=message):
        load(name, write(tmp_path, files))


@pytest.mark.parametrize("data", [b"", b"\n\n", b"x_acc,y_acc,z_acc,x_gyro,y_gyro,z_gyro,timestamp,label\n\n"])
def test_empty_files(tmp_path, data):
    write(tmp_path, {"s1_1_sw.csv": data, "data_1_accel_watch.txt": b"\n"})
    with pytest.raises(DatasetError, match=r"s1_1_sw\.csv"):
        load("sp_sw_har", tmp_path)
    with pytest.raises(DatasetError, match="no rows"):
        load("wisdm2019_watch", tmp_path)
