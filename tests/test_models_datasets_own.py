"""Your own recordings: CSV files and traces in a folder."""

from __future__ import annotations

import numpy as np
import pytest
from dataset_files import OWN_FILES, make_zip, own_csv, write

from models.datasets import detect, load
from models.datasets.own import OWN
from protocol.trace import Trace
from quantization.errors import DatasetError
from quantization.imu import ACC, ACC_GYRO
from quantization.sensor import Sensor


def test_own_labels_are_one_list(tmp_path):
    recordings = load("own", write(tmp_path, OWN_FILES))
    assert [(r.subject, r.name) for r in recordings] == [("anna", "anna_1"), ("bob", "bob_b"), ("bob", "sub/bob_a_1")]
    assert {r.labels for r in recordings} == {("jump", "walk")}
    assert [(r.label.min(), r.label.max()) for r in recordings] == [(-1, 1), (-1, 1), (-1, 0)]
    assert (recordings[0].label[:30] == -1).all()
    assert recordings[0].values[0].tolist() == pytest.approx([0.1, 0.2, 0.98, 1, 2, 3])
    assert recordings[0].rate_hz == pytest.approx(50)


def test_own_columns_in_any_order_and_a_subject_column(tmp_path):
    rows = [f"carol,{9.5 + i / 25},walk it,0,1,0" for i in range(10)]
    text = "\ufeffsubject, t_s ,label,acc_z,acc_y,acc_x\r\n" + "\r\n".join(rows)
    write(tmp_path, {"take.csv": text.encode(), "dan.csv": own_csv("", gyro=False)})
    carol, dan = load(detect(tmp_path), tmp_path)
    assert OWN.subjects(tmp_path) == ("carol", "dan")
    assert (carol.subject, dan.subject) == ("carol", "dan")
    assert carol.channels == dan.channels == ACC
    assert carol.values[0].tolist() == [0, 1, 0]
    assert carol.labels == dan.labels == ("walk it",)
    assert set(dan.label) == {-1}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"timestamp_ms", b"time", "unknown column 'time'"),
        (b"timestamp_ms", b"label", "a column name repeats"),
        (b"gyro_z,label", b"t_s,label", "two time columns"),
        (b"gyro_z", b"subject", "gyro_x, gyro_y and gyro_z come together"),
        (b"acc_z", b"subject", "acc_x, acc_y and acc_z are needed"),
        (b",", b";", "unknown column"),
        (b"timestamp_ms", b"t_s", r"0\.05 Hz by its t_s column"),
        (b",0.98,", b",9.61,", "must be in g, not m/s²"),
        (b",0.98,", b",0.01,", r"anna_1\.csv: the median acceleration is 0\.224 g, so gravity was taken out"),
        (b"\n1040,", b"\n900,", r"anna_1\.csv:4: timestamp_ms runs backwards"),
        (b"\n1040,", b"\nx,", r"anna_1\.csv:4: malformed row"),
        (b"walk", b"w" * 80, "up to 48 of"),
        (b"walk", b"w" * 49, r"anna_1\.csv: a label is called 'w+'; labels have up to 48 of"),
        (b"walk", "gehen über".encode(), r"anna_1\.csv: a label is called 'gehen über'"),
        (b"walk", b"-", r"anna_1\.csv: a label is called '-'.* begin with a letter or a digit"),
        (b"walk", b"Unknown", r"anna_1\.csv: a label is called 'Unknown'.* leave it empty"),
    ],
)
def test_own_mistakes(tmp_path, old, new, message):
    data = own_csv("walk")
    assert old in data
    write(tmp_path, {"anna_1.csv": data.replace(old, new)})
    with pytest.raises(DatasetError, match=message):
        load("own", tmp_path)


def test_own_file_with_two_subjects(tmp_path):
    rows = "\n".join(f"{i / 50},0,0,1,{'ab'[i % 2]}" for i in range(10))
    write(tmp_path, {"x.csv": f"t_s,acc_x,acc_y,acc_z,subject\n{rows}".encode()})
    with pytest.raises(DatasetError, match="found 2 subjects"):
        load("own", tmp_path)


def test_own_traces(tmp_path):
    sensor = Sensor.symmetric("demo", ACC_GYRO, adc_bits=12, full_scale={"acc": 8.0, "gyro": 1000.0})
    counts = np.tile(np.array([[0, 0, 256, 10, -10, 0]], np.int32), (50, 1))
    tick = np.arange(50, dtype=np.int64) * 20 + 7
    label = np.array([0] * 25 + [-1] * 25, np.int16)
    Trace(sensor, 50.0, counts, tick, label, ("stir",), subject="eve").save(tmp_path / "t1.gwtrace")
    Trace(sensor, 50.0, counts, tick, label, ("brew",)).save(tmp_path / "fay_2.gwtrace")
    write(tmp_path, {"anna_1.csv": own_csv("walk")})
    assert detect(tmp_path) is OWN
    assert OWN.subjects(tmp_path) == ("anna", "eve", "fay")
    _, eve, fay = load("own", tmp_path)
    assert eve.labels == ("brew", "stir", "walk")
    assert eve.label.tolist() == [1] * 25 + [-1] * 25
    assert fay.label[0] == 0
    assert eve.t_s[:2].tolist() == [0, 0.02]
    assert eve.values[0] == pytest.approx(sensor.to_physical(counts[:1])[0], rel=1e-6)
    Trace(sensor, 50.0, counts, tick, label, ("unknown",)).save(tmp_path / "bad.gwtrace")
    with pytest.raises(DatasetError, match=r"bad\.gwtrace: a label is called 'unknown'"):
        load("own", tmp_path)
    (tmp_path / "bad.gwtrace").write_bytes(b"no")
    with pytest.raises(DatasetError, match=r"bad\.gwtrace"):
        load("own", tmp_path)
    archive = tmp_path / "a.zip"
    archive.write_bytes(make_zip({"t.gwtrace": (tmp_path / "t1.gwtrace").read_bytes()}))
    with pytest.raises(DatasetError, match="unpack"):
        load("own", archive)
