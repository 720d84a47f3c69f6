"""The layouts of data sets that spread a recording over several files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dataset_files import WEDA_FILES, WISDM_SIX_FILES, weda_csv, wisdm_txt, write
from hypothesis import given
from hypothesis import strategies as st

from models.datasets import DATASETS, load, store
from models.datasets.companions import MAX_GAP_S, at_times
from models.resample import resample
from quantization.errors import DatasetError


def test_weda_bursts_become_even_and_falls_labelled(tmp_path):
    write(tmp_path, WEDA_FILES)
    walk, fall = load("weda_fall", tmp_path, ["U01"])
    assert (walk.name, fall.name) == ("D01/U01_R01", "F08/U01_R01")
    steps = np.diff(walk.t_s)
    assert steps == pytest.approx(1 / 49.4, rel=0.01)
    assert walk.values[6] == pytest.approx(
        [0.6 / 9.80665, -0.3 / 9.80665, 9.8 / 9.80665, *np.rad2deg([0.6, -0.3, 0.2])]
    )
    assert [walk.labels[i] for i in set(walk.label)] == ["walking"]
    falling = fall.label == fall.labels.index("fall")
    assert fall.t_s[falling][[0, -1]] == pytest.approx([1.0, 2.5], abs=0.02)
    assert set(fall.label[~falling]) == {-1}


def test_weda_gyro_of_another_rate_is_interpolated(tmp_path):
    slow = weda_csv("gyro", n=161, rate_hz=39.5)
    files = {"50Hz/D02/U05_R02_accel.csv": weda_csv("accel"), "50Hz/D02/U05_R02_gyro.csv": slow}
    (r,) = load("weda_fall", write(tmp_path, files))
    step = (0.1 * np.arange(161) % 0.7)[:4]
    wanted = np.rad2deg(np.interp(r.t_s[:4], np.arange(4) / 39.5, step))
    assert r.values[:4, 3] == pytest.approx(wanted, abs=0.5)


@pytest.mark.parametrize(
    ("steps", "kept"),
    [({150: 0.5}, 150), ({120: -0.5}, 120), ({100: 0.5, 150: -0.5}, 100), ({79: 0.5}, 0)],
)
def test_weda_recording_ends_where_its_clock_breaks(tmp_path, steps, kept):
    lines = weda_csv("accel").decode().splitlines()
    rows = [line.split(",", 1) for line in lines[1:]]
    broken = [
        f"{float(t) + sum(s for at, s in steps.items() if i >= at):.3f},{rest}" for i, (t, rest) in enumerate(rows)
    ]
    files = WEDA_FILES | {"dataset/50Hz/D01/U01_R01_accel.csv": "\n".join([lines[0], *broken]).encode()}
    recordings = load("weda_fall", write(tmp_path, files), ["U01"])
    assert len(recordings) == (2 if kept else 1)
    if kept:
        assert len(recordings[0].label) == kept


@pytest.mark.parametrize("file", ["D01/U01_R01_gyro.csv", "../fall_timestamps.csv"])
def test_weda_missing_companion_names_both(tmp_path, file):
    files = dict(WEDA_FILES)
    del files["dataset/fall_timestamps.csv" if file.startswith("..") else f"dataset/50Hz/{file}"]
    with pytest.raises(DatasetError, match=rf"U01_R01_accel\.csv: there is no .*{Path(file).name} beside it"):
        load("weda_fall", write(tmp_path, files))


def test_wisdm_gyro_is_brought_to_the_accelerometers_times(tmp_path):
    accel = "".join(f"1700,A,{50 * i}000000,0,0,9.80665;\n" for i in range(60))
    accel += "".join(f"1700,B,{50 * i}000000,0,0,9.80665;\n" for i in range(60))
    # From 20 ms on, a pause from 1.02 s to 1.52 s, nothing for jogging.
    times = [20 + 50 * i for i in range(60) if not 1030 < 20 + 50 * i < 1500]
    gyro = "".join(f"1700,A,{t}000000,{t / 1000},0,{-t / 1000};\n" for t in times)
    write(tmp_path, {"data_1700_accel_watch.txt": accel.encode(), "data_1700_gyro_watch.txt": gyro.encode()})
    (r,) = load("wisdm2019_watch_6axis", tmp_path)
    assert r.name == "1700_walking"
    t = 0.05 + r.t_s  # the first accelerometer sample has no gyroscope before it
    assert r.values[:, 3] == pytest.approx(np.rad2deg(t), rel=1e-5)
    assert r.values[:, 5] == pytest.approx(-np.rad2deg(t), rel=1e-5)
    assert r.values[:, 2] == pytest.approx(np.ones(len(t)))
    assert t[(t > 1.01) & (t < 1.54)].tolist() == []
    assert t[-1] == pytest.approx(2.95)
    assert [len(s.label) for s in resample(r, 20)] == [20, 29]


def test_wisdm_subjects_without_gyro_are_left_out(tmp_path):
    files = dict(WISDM_SIX_FILES)
    del files["wisdm-dataset/raw/watch/gyro/data_1600_gyro_watch.txt"]
    write(tmp_path, files)
    assert DATASETS["wisdm2019_watch_6axis"].subjects(tmp_path) == ("1650",)
    assert {r.subject for r in load("wisdm2019_watch_6axis", tmp_path)} == {"1650"}
    assert DATASETS["wisdm2019_watch"].subjects(tmp_path) == ("1600", "1650")
    with pytest.raises(DatasetError, match="no subject 1600; there are 1650"):
        load("wisdm2019_watch_6axis", tmp_path, ["1600"])
    (tmp_path / "wisdm-dataset/raw/watch/gyro/data_1650_gyro_watch.txt").unlink()
    with pytest.raises(DatasetError, match=r"not wisdm2019_watch_6axis: .*none of those that belong to them"):
        load("wisdm2019_watch_6axis", tmp_path)
    with store.Store(tmp_path) as opened:
        assert not DATASETS["wisdm2019_watch_6axis"].recognises(opened)


def test_wisdm_gyro_of_another_time_is_refused(tmp_path):
    files = {"data_1_accel_watch.txt": wisdm_txt("1"), "data_1_gyro_watch.txt": wisdm_txt("1", late_ns=10**10)}
    with pytest.raises(DatasetError, match=r"data_1_gyro_watch\.txt: no sample was taken at the time"):
        load("wisdm2019_watch_6axis", write(tmp_path, files))


ROW = st.lists(st.integers(1, 400), min_size=1, max_size=30)


@given(ours=ROW, theirs=ROW, start=st.integers(-500, 500))
def test_interpolation_invents_nothing(ours, theirs, start):
    t = np.cumsum(ours) / 1000
    other = np.cumsum([start, *theirs]) / 1000
    values, inside = at_times(t, other, np.stack([3 * other, -other], axis=1))
    assert values[inside] == pytest.approx(np.stack([3 * t, -t], axis=1)[inside])
    for time_s, known in zip(t, inside, strict=True):
        before, after = other[other <= time_s], other[other >= time_s]
        assert known == bool(len(before) and len(after) and after[0] - before[-1] <= MAX_GAP_S)
