"""Every data set passes one list of checks; then each one's own layout, and what is not a data set.

The checks on published recordings need the archives and are skipped where those are absent; small made-up copies of
each layout are checked everywhere.
"""

from __future__ import annotations

import io
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.datasets import (
    DATASETS,
    Recording,
    casale_chest,
    detect,
    get,
    load,
    sp_sw_har,
    store,
    wisdm2019_watch,
)
from models.datasets.companions import MAX_GAP_S, at_times
from models.datasets.own import OWN
from models.resample import resample
from models.tasks import TASKS, load_material
from models.windows import cut
from protocol.trace import Trace
from quantization.errors import DatasetError
from quantization.imu import ACC, ACC_GYRO, STANDARD_GRAVITY
from quantization.sensor import Sensor

SHARED = Path(__file__).parents[2] / "shared" / "data" / "har"


# --- small copies of each layout ------------------------------------------------------------------------------------


def sp_sw_csv(seed: int, n: int = 120) -> bytes:
    generator = np.random.default_rng(seed)
    lines = ["x_acc,y_acc,z_acc,x_gyro,y_gyro,z_gyro,timestamp,label"]
    for i in range(n):
        x, y = generator.normal(0, 0.1, 2)
        row = [x, y, STANDARD_GRAVITY, *generator.normal(0, 0.2, 3), 1657533977810 + 10 * i]
        lines.append(",".join(map(str, row)) + "," + sp_sw_har.LABELS[i * 5 // n])
    return ("\n".join(lines) + "\n").encode()


def wisdm_txt(subject: str, activities: str = "ABDS", n: int = 60, late_ns: int = 0, z: float = 9.8) -> bytes:
    lines = []
    for k, letter in enumerate(activities):
        start = 90426708196641 - k * 10**12 + late_ns  # the clock restarts
        lines += [f"{subject},{letter},{start + 49_900_000 * i},0.1,-0.2,{z + i % 2 / 10:.1f};" for i in range(n)]
    return ("\n".join(lines) + "\n").encode()


def casale_csv(subject: str, n: int = 240) -> bytes:
    up = np.array([0, casale_chest.COUNTS_PER_G, 0])
    rest = np.rint(np.array(casale_chest.OFFSETS[subject]) + up).astype(int)
    noise = np.random.default_rng(int(subject)).integers(-3, 4, (n, 3))
    rows = [f"{min(i, 99)},{x},{y},{z},{i * 8 // n}" for i, (x, y, z) in enumerate(rest + noise)]
    return ("\n".join(rows) + "\n").encode()


def weda_csv(kind: str, n: int = 200, rate_hz: float = 49.4, scale: float = 1.0) -> bytes:
    """Delivered in bursts of five, a millisecond apart."""
    lines = [",".join(f"{kind}_{column}_list" for column in ("time", "x", "y", "z"))]
    for i in range(n):
        t = (i // 5 * 5) / rate_hz + i % 5 / 1000
        lines.append(f"{t:.3f},{scale * (i % 7) / 10:.1f},-0.3,{9.8 if kind == 'accel' else 0.2}")
    return ("\n".join(lines) + "\n").encode()


def own_csv(label: str, *, gyro: bool = True, n: int = 60) -> bytes:
    head = "timestamp_ms,acc_x,acc_y,acc_z" + (",gyro_x,gyro_y,gyro_z" if gyro else "") + ",label"
    rows = [
        f"{1000 + 20 * i},0.1,0.2,0.98" + (",1,2,3" if gyro else "") + f",{label if i >= n // 2 else ''}"
        for i in range(n)
    ]
    return "\n".join([head, *rows]).encode()


SP_SW_FILES = {
    f"DATA/{s}/{s}_{k}_{device}.csv": sp_sw_csv(i)
    for i, (s, k, device) in enumerate((s, k, d) for s in ("s01", "s23") for k in ("01", "02") for d in ("sp", "sw"))
} | {"DATA/subjects_info.csv": b"id,age\ns01,44\n", "README.md": b"#"}
WISDM_FILES = {f"wisdm-dataset/raw/watch/accel/data_{s}_accel_watch.txt": wisdm_txt(s) for s in ("1600", "1650")} | {
    "wisdm-dataset/raw/watch/accel/.DS_Store": b"\0",
    "wisdm-dataset/raw/watch/gyro/data_1600_gyro_watch.txt": b"",
    "wisdm-dataset/raw/phone/accel/data_1600_accel_phone.txt": b"",
    "__MACOSX/wisdm-dataset/raw/watch/accel/data_1600_accel_watch.txt": b"\0",
    "wisdm-dataset/raw/watch/accel/._data_1600_accel_watch.txt": b"\0",
}
WISDM_SIX_FILES = {
    f"wisdm-dataset/raw/watch/{kind}/data_{s}_{kind}_watch.txt": wisdm_txt(s, late_ns=late, z=z)
    for s in ("1600", "1650")
    for kind, late, z in (("accel", 0, 9.8), ("gyro", 7_000_000, 0.9))
}
CASALE_FOLDER = "Activity Recognition from Single Chest-Mounted Accelerometer"
CASALE_FILES = {f"{CASALE_FOLDER}/{s}.csv": casale_csv(s) for s in ("1", "10")} | {f"{CASALE_FOLDER}/README": b"1."}
WEDA_FILES = {
    f"dataset/50Hz/{activity}/{s}_R01_{kind}.csv": weda_csv(kind)
    for activity in ("D01", "F08")
    for s in ("U01", "U31")
    for kind in ("accel", "gyro", "vertical_accel", "orientation")
} | {
    "dataset/25Hz/D01/U01_R01_accel.csv": weda_csv("accel"),
    "dataset/fall_timestamps.csv": (
        b"\xef\xbb\xbffilename,start_time,end_time\r\nF08/U01_R01,1.0,2.5\r\nF08/U31_R01,1,3\r\n"
    ),
}
OWN_FILES = {"anna_1.csv": own_csv("walk"), "sub/bob_a_1.csv": own_csv("jump"), "bob_b.csv": own_csv("walk")}


@dataclass(frozen=True)
class Case:
    name: str
    files: dict[str, bytes]
    archive: str | None
    subjects: tuple[str, ...]
    recordings: int
    rate_hz: float


CASES = [
    Case("sp_sw_har", SP_SW_FILES, "sp_sw_har.zip", ("s01", "s23"), 4, 50),
    Case("sp_sw_har_phone", SP_SW_FILES, "sp_sw_har.zip", ("s01", "s23"), 4, 50),
    Case("wisdm2019_watch", WISDM_FILES, "wisdm2019_watch.zip", ("1600", "1650"), 8, 20),
    Case("own", OWN_FILES, None, ("anna", "bob"), 3, 25),
    Case("wisdm2019_watch_6axis", WISDM_SIX_FILES, "wisdm2019_watch.zip", ("1600", "1650"), 8, 20),
    Case("casale_chest", CASALE_FILES, "casale_chest.zip", ("1", "10"), 2, 26),
    Case("weda_fall", WEDA_FILES, "weda_fall.zip", ("U01", "U31"), 4, 25),
]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
PUBLISHED = [case for case in CASES if case.archive is not None]


def case_of(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def make_zip(files: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def shared(case: Case) -> Path:
    assert case.archive is not None
    path = SHARED / case.archive
    if not path.exists():
        pytest.skip(f"needs {path}")
    return path


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


@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: case.name)
def test_zip_in_a_zip_and_zip_in_a_folder(case, tmp_path):
    inner = make_zip({f"Publisher-repo-1.0/{name}": data for name, data in case.files.items()})
    (tmp_path / "outer.zip").write_bytes(make_zip({"readme.txt": b"", "part/inner.zip": inner}))
    expected = load(case.name, write(tmp_path / "folder", case.files))
    assert same(expected, load(case.name, tmp_path / "outer.zip"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "outer.zip").rename(tmp_path / "cache" / "outer.zip")
    assert same(expected, load(case.name, tmp_path / "cache"))
    assert detect(tmp_path / "cache").name == first_of_archive(case)


@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: case.name)
def test_two_copies_are_refused(case, tmp_path):
    write(tmp_path / "one", case.files)
    write(tmp_path / "two", case.files)
    with pytest.raises(DatasetError, match="the same file twice"):
        load(case.name, tmp_path)


# --- published recordings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: case.name)
def test_published_recordings(case):
    path = shared(case)
    data = DATASETS[case.name]
    subjects = data.subjects(path)
    assert len(subjects) >= 12
    recordings = load(case.name, path, subjects[:3])
    check_recordings(case, path, recordings)
    assert {r.subject for r in recordings} == set(subjects[:3])
    assert set(np.concatenate([r.label for r in recordings])) - {-1} == set(range(len(data.labels)))


@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: case.name)
def test_published_archive_is_the_unpacked_folder(case, tmp_path):
    path = shared(case)
    subject = DATASETS[case.name].subjects(path)[1]
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if subject in member or member.endswith("fall_timestamps.csv"):
                archive.extract(member, tmp_path)
    assert same(load(case.name, path, [subject]), load(case.name, tmp_path))


def test_one_wisdm_subject_is_fast():
    path = shared(CASES[2])
    began = time.perf_counter()
    load("wisdm2019_watch", path, ["1605"])
    assert time.perf_counter() - began < 2  # 0.1 s on a 2020 laptop; leaves room for a busy machine


def test_activity_key_is_the_published_one():
    with zipfile.ZipFile(shared(CASES[2])) as archive:
        text = archive.read("wisdm-dataset/activity_key.txt").decode()
    published = dict(reversed(line.split(" = ")) for line in text.splitlines() if line)
    assert list(published) == list(wisdm2019_watch.ACTIVITIES)
    assert all(published[letter] in name for letter, name in wisdm2019_watch.ACTIVITIES.items())


# --- each layout's own ----------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("data", [b"", b"\n\n", b"x_acc,y_acc,z_acc,x_gyro,y_gyro,z_gyro,timestamp,label\n\n"])
def test_empty_files(tmp_path, data):
    write(tmp_path, {"s1_1_sw.csv": data, "data_1_accel_watch.txt": b"\n"})
    with pytest.raises(DatasetError, match=r"s1_1_sw\.csv"):
        load("sp_sw_har", tmp_path)
    with pytest.raises(DatasetError, match="no rows"):
        load("wisdm2019_watch", tmp_path)


# --- archives that are none -----------------------------------------------------------------------------------------


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


def test_unknown_name_lists_the_known():
    with pytest.raises(DatasetError, match="no data set 'mnist'; known: sp_sw_har"):
        get("mnist")


# --- your own -------------------------------------------------------------------------------------------------------


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
        (b"\n1040,", b"\n900,", r"anna_1\.csv:4: timestamp_ms runs backwards"),
        (b"\n1040,", b"\nx,", r"anna_1\.csv:4: malformed row"),
        (b"walk", b"w" * 80, "fewer than 64 letters"),
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
    (tmp_path / "bad.gwtrace").write_bytes(b"no")
    with pytest.raises(DatasetError, match=r"bad\.gwtrace"):
        load("own", tmp_path)
    archive = tmp_path / "a.zip"
    archive.write_bytes(make_zip({"t.gwtrace": (tmp_path / "t1.gwtrace").read_bytes()}))
    with pytest.raises(DatasetError, match="unpack"):
        load("own", archive)


# --- the recording itself -------------------------------------------------------------------------------------------


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
