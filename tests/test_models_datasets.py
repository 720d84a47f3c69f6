"""Every data set passes one list of checks, as small made-up copies and as published.

The checks on published recordings need the archives; see ``tests/needed.py`` for where those are absent.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from dataset_files import CASES, PUBLISHED, Case, case_of, make_zip, shared, write

from models.datasets import DATASETS, Recording, detect, get, load
from models.resample import resample
from models.tasks import TASKS, load_material
from models.windows import cut
from quantization.errors import DatasetError
from quantization.imu import ACC, ACC_GYRO

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_published = pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: case.name)


def first_of_archive(case: Case) -> str:
    """Phone and watch lie in one archive, and so do accelerometer and gyroscope."""
    return case.name.removesuffix("_phone").removesuffix("_6axis")


def same(left: list[Recording], right: list[Recording]) -> bool:
    return [r.name for r in left] == [r.name for r in right] and all(
        np.array_equal(a.t_s, b.t_s) and np.array_equal(a.values, b.values) and np.array_equal(a.label, b.label)
        for a, b in zip(left, right, strict=True)
    )


def check_recordings(case: Case, path: Path, recordings: list[Recording]) -> None:
    """The list that every data set passes."""
    data = DATASETS[case.name]
    assert recordings
    keys = [(r.subject, r.name) for r in recordings]
    assert len(set(keys)) == len(keys)
    assert [r.subject for r in recordings] == sorted(r.subject for r in recordings)
    assert {r.subject for r in recordings} <= set(data.subjects(path))
    for r in recordings:
        assert r.dataset == data.name
        assert r.channels == (data.channels or r.channels)
        assert r.labels == (data.labels or recordings[0].labels)
        assert r.t_s[0] == 0
        if data.rate_hz:
            # A watch that fell behind catches up in bursts at five times its rate; one was at 40 Hz when told 50.
            assert 0.78 * data.rate_hz < r.rate_hz < 5.5 * data.rate_hz
    acceleration = np.concatenate([r.values[:, :3] for r in recordings])
    assert np.median(np.linalg.norm(acceleration, axis=1)) == pytest.approx(1, abs=0.1)
    if data.channels == ACC_GYRO:
        gyro = np.abs(np.concatenate([r.values[:, 3:] for r in recordings]))
        assert 3 < np.percentile(gyro, 90) < 500
        assert gyro.max() < 2300
    for r in recordings[:4]:
        assert all(len(s.label) >= 2 and s.rate_hz == case.rate_hz for s in resample(r, case.rate_hz))


@every_case
def test_metadata(case):
    data = DATASETS[case.name]
    assert data.name == case.name
    assert data.title
    assert data.licence
    assert data.how_to
    assert len(set(data.labels)) == len(data.labels)
    for file in data.files:
        assert file.url.startswith("https://")
        assert Path(file.filename).name == file.filename


@every_case
def test_folder_and_archive_are_one(case, tmp_path):
    data = DATASETS[case.name]
    folder = write(tmp_path / "folder", case.files)
    archive = tmp_path / "a.zip"
    archive.write_bytes(make_zip(case.files, zipfile.ZIP_LZMA))
    recordings = load(case.name, folder)
    check_recordings(case, folder, recordings)
    assert data.subjects(folder) == data.subjects(archive) == case.subjects
    assert len(recordings) == case.recordings
    assert same(recordings, load(case.name, archive))
    one = case.subjects[0]
    assert same([r for r in recordings if r.subject == one], load(data, folder, [one]))
    assert same(load(data, folder, one), load(data, archive, {one}))
    assert load(data, folder, []) == []
    assert detect(folder).name == detect(archive).name == first_of_archive(case)


@every_case
def test_unknown_subject(case, tmp_path):
    folder = write(tmp_path, case.files)
    with pytest.raises(DatasetError, match=f"no subject zoe; there are {case.subjects[0]}"):
        load(case.name, folder, [case.subjects[0], "zoe"])


@every_case
def test_nothing_there(case, tmp_path):
    data = DATASETS[case.name]
    for call in (lambda path: load(data, path), data.subjects, detect):
        with pytest.raises(DatasetError, match="no such file or folder"):
            call(tmp_path / "absent")
        with pytest.raises(DatasetError, match="found nothing"):
            call(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DatasetError, match=r"expected .*found notes\.txt"):
        load(data, tmp_path)


@every_published
def test_zip_in_a_zip_and_zip_in_a_folder(case, tmp_path):
    inner = make_zip({f"Publisher-repo-1.0/{name}": data for name, data in case.files.items()})
    (tmp_path / "outer.zip").write_bytes(make_zip({"readme.txt": b"", "part/inner.zip": inner}))
    expected = load(case.name, write(tmp_path / "folder", case.files))
    assert same(expected, load(case.name, tmp_path / "outer.zip"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "outer.zip").rename(tmp_path / "cache" / "outer.zip")
    assert same(expected, load(case.name, tmp_path / "cache"))
    assert detect(tmp_path / "cache").name == first_of_archive(case)


@every_published
def test_two_copies_are_refused(case, tmp_path):
    write(tmp_path / "one", case.files)
    write(tmp_path / "two", case.files)
    with pytest.raises(DatasetError, match="the same file twice"):
        load(case.name, tmp_path)


# --- published recordings -------------------------------------------------------------------------------------------


@every_published
def test_published_recordings(case):
    path = shared(case)
    data = DATASETS[case.name]
    subjects = data.subjects(path)
    assert len(subjects) >= 12
    recordings = load(case.name, path, subjects[:3])
    check_recordings(case, path, recordings)
    assert {r.subject for r in recordings} == set(subjects[:3])
    assert set(np.concatenate([r.label for r in recordings])) - {-1} == set(range(len(data.labels)))


@every_published
def test_published_archive_is_the_unpacked_folder(case, tmp_path):
    path = shared(case)
    subject = DATASETS[case.name].subjects(path)[1]
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if subject in member or member.endswith("fall_timestamps.csv"):
                archive.extract(member, tmp_path)
    assert same(load(case.name, path, [subject]), load(case.name, tmp_path))


# --- tasks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.dataset)
def test_tasks_name_what_the_data_have(task):
    data = DATASETS[task.dataset]
    assert not set(task.test) & set(task.validation)
    assert {*task.merged, *task.excluded} <= set(data.labels)
    assert set(task.background) <= set(task.excluded)
    assert (task.gyro_dps is None) == (data.channels == ACC)
    assert task.sensor(data.channels).adc_bits == 12
    subjects = data.subjects(shared(case_of(task.dataset)))
    assert {*task.test, *task.validation} <= set(subjects)


@pytest.mark.parametrize("name", ["casale_chest", "weda_fall"])
def test_tasks_make_windows_of_small_copies(name, tmp_path):
    task = TASKS[name]
    material = load_material(task, write(tmp_path, case_of(name).files))
    assert not set(task.excluded) & set(material.labels)
    windows = cut(material.segments, length=task.window, stride=task.stride, classes=len(material.labels))
    assert len(windows) >= 4
    assert (windows.truth >= 0).any()


# --- the registry, the recording itself -------------------------------------------------------------------------------


def test_unknown_name_lists_the_known():
    with pytest.raises(DatasetError, match="no data set 'mnist'; known: sp_sw_har"):
        get("mnist")


def fields(**changes):
    good = {
        "dataset": "d", "subject": "s", "name": "n", "channels": ACC, "labels": ("a",),
        "t_s": np.array([0.0, 0.1]), "values": np.zeros((2, 3), np.float32), "label": np.array([0, -1], np.int16),
    }  # fmt: skip
    return good | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": ("acc x",)}, "not a channel name"),
        ({"labels": ("a", "a")}, "label names repeat"),
        ({"t_s": np.array([0, 1])}, "t_s is int64"),
        ({"values": np.zeros((2, 6), np.float32)}, "values is float32"),
        ({"values": np.full((2, 3), np.nan, np.float32)}, "not a finite number"),
        ({"label": np.zeros(3, np.int16)}, "label is int16"),
        ({"label": np.array([0, 1], np.int16)}, r"outside -1\.\.0"),
        ({"label": np.array([0, -2], np.int16)}, "outside"),
        ({"t_s": np.array([0.1, 0.0])}, "backwards at sample 1"),
        ({"t_s": np.zeros(0), "values": np.zeros((0, 3), np.float32), "label": np.zeros(0, np.int16)}, "no samples"),
    ],
)
def test_recording_refuses(changes, message):
    assert Recording(**fields()).rate_hz == pytest.approx(10)
    assert Recording(**fields(t_s=np.zeros(2))).rate_hz == 0
    with pytest.raises(DatasetError, match=message):
        Recording(**fields(**changes))
