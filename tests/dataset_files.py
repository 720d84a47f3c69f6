"""Small made-up copies of each data set's layout, and where the published archives are.

A new data set is one line in :data:`CASES`.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from needed import need

from models.datasets import casale_chest, sp_sw_har
from quantization.imu import STANDARD_GRAVITY

SHARED = Path(__file__).parents[2] / "shared" / "data" / "har"


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
    """A data set's copy and what is to be found in it; ``archive`` is the published one's name in :data:`SHARED`."""

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
    """The case's published archive; see :func:`needed.need`."""
    assert case.archive is not None
    path = SHARED / case.archive
    need(path.exists(), str(path))
    return path
