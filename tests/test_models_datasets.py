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

from models.datasets import DATASETS, Recording, detect, get, load, sp_sw_har, store, wisdm2019_watch
from models.datasets.own import OWN
from models.resample import resample
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


def wisdm_txt(subject: str, activities: str = "ABDS", n: int = 60) -> bytes:
    lines = []
    for k, letter in enumerate(activities):
        start = 90426708196641 - k * 10**12  # the clock restarts
        lines += [f"{subject},{letter},{start + 49_900_000 * i},0.1,-0.2,{9.8 + i % 2 / 10};" for i in range(n)]
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
]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
PUBLISHED = [case for case in CASES if case.archive is not None]


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
            # A watch that fell behind catches up in bursts at five times its rate.
            assert 0.9 * data.rate_hz < r.rate_hz < 5.5 * data.rate_hz
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
    expected = case.name.removesuffix("_phone")  # both lie in one archive; the watch comes first
    assert detect(folder).name == detect(archive).name == expected


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
    assert detect(tmp_path / "cache").name == case.name.removesuffix("_phone")


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
    assert len(subjects) >= 18
    recordings = load(case.name, path, subjects[:3])
    check_recordings(case, path, recordings)
    assert {r.subject for r in recordings} == set(subjects[:3])
    assert set(np.concatenate([r.label for r in recordings])) == set(range(len(data.labels)))


@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: case.name)
def test_published_archive_is_the_unpacked_folder(case, tmp_path):
    path = shared(case)
    subject = DATASETS[case.name].subjects(path)[1]
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if subject in member:
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
