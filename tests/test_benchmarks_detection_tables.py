"""Detection's tables and picture say what made-up rows say."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import detection_tables as made
from benchmarks.detection_plots import bytes_picture
from quantization.errors import GammawearError

LIGHTS = ("1", "0.25", "0.1")
FACTORS = {"1": 1.0, "0.25": 0.9, "0.1": 0.5}


def score(ap50: float) -> dict[str, Any]:
    return {"ap": ap50 / 2, "ap50": ap50, "ap50_by_class": [ap50, ap50 - 0.1]}


def size(mean: float) -> dict[str, Any]:
    return {"frames": 2, "bytes_mean": mean, "bytes_max": int(mean) + 1, "bits_per_photosite": 8 * mean / 76_800}


def row(
    curve: str, bits: int, seed: int, ap50: float, coded: float | None = None, task: str = "bccd"
) -> dict[str, Any]:
    light = {name: score(ap50 * FACTORS[name]) for name in LIGHTS}
    made_row = {"task": task, "curve": curve, "bits": bits, "seed": seed, "classes": ["RBC", "Platelets"]}
    if coded is not None:
        sizes = {name: size(coded * FACTORS[name]) for name in LIGHTS}
        made_row |= {"packed": size(76_800 * bits / 8 + 120), "coded": sizes}
    return {**made_row, "light": light}


def jpeg_row(seed: int, by_quality: dict[int, tuple[float, float]], task: str = "bccd") -> dict[str, Any]:
    jpeg = {
        str(quality): {name: score(ap50 * FACTORS[name]) | size(mean / FACTORS[name]) for name in LIGHTS}
        for quality, (ap50, mean) in by_quality.items()
    }
    return {"task": task, "curve": "jpeg", "bits": 8, "seed": seed, "classes": ["RBC", "Platelets"], "jpeg": jpeg}


ROWS = [
    row("linear", 4, 0, 0.70, 8000.0),
    row("linear", 4, 1, 0.72, 8000.0),
    row("gamma", 2, 0, 0.75, 4000.0),
    jpeg_row(0, {10: (0.5, 1500.0), 90: (0.78, 22_000.0)}),
    row("none", 12, 0, 0.80),
    row("none", 12, 1, 0.84),
    row("none", 12, 2, 0.90),
    row("gamma", 4, 1, 0.82, 12_000.0),
    row("gamma", 4, 0, 0.79, 10_000.0),
]


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_every_line_has_all_cells() -> None:
    measured: dict[str, Any] = {"rows": []}
    tables = [made.scores(ROWS, "bccd"), made.differences(ROWS), made.by_class(ROWS, "bccd"), made.sizes(ROWS)]
    for table in (*tables, made.frame_coders(measured), made.scores([], "bccd"), made.by_class([], "bccd")):
        assert len({len(line) for line in cells(table)}) == 1


def test_curves_stand_in_order_with_their_spread_and_seeds() -> None:
    lines = cells(made.scores(ROWS, "bccd"))[2:]
    names = ["12-bit counts", "γ (ours), 4 bits", "γ (ours), 2 bits", "linear, 4 bits"]
    assert [line[0] for line in lines] == [*names, "JPEG, quality 90", "JPEG, quality 10"]
    assert lines[0] == [
        "12-bit counts", "0.847 ± 0.050", "0.762 ± 0.045", "0.423 ± 0.025",
        "0.423 ± 0.025", "0.381 ± 0.023", "0.212 ± 0.013", "3",
    ]  # fmt: skip
    assert lines[2] == ["γ (ours), 2 bits", "0.750", "0.675", "0.375", "0.375", "0.338", "0.188", "1"]


def test_another_tasks_rows_are_left_out() -> None:
    others = [row("log", 4, 0, 0.1, task="penn_fudan"), *ROWS]
    assert made.scores(others, "bccd") == made.scores(ROWS, "bccd")
    assert made.tasks_of(others) == ["penn_fudan", "bccd"]


def test_a_difference_is_of_the_seeds_that_both_have() -> None:
    lines = {line[1]: line[2:] for line in cells(made.differences(ROWS))}
    # −1 and −2 points: mean −1.5, SD 0.707, standard error 0.5, times 12.706.
    assert lines["γ (ours), 4 bits − 12-bit counts"] == ["-1.5 (-7.9 … +4.9)", "-0.8 (-3.9 … +2.4)", "2"]
    assert lines["γ (ours), 2 bits − 12-bit counts"] == ["-5.0 (one seed)", "-2.5 (one seed)", "1"]
    assert lines["γ (ours), 4 bits − linear, 4 bits"] == ["+9.5 (+3.1 … +15.9)", "+4.8 (+1.6 … +7.9)", "2"]
    assert lines["JPEG, quality 90 − 12-bit counts"][0] == "-2.0 (one seed)"
    assert "12-bit counts − 12-bit counts" not in lines


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_intervals_hold_the_mean_in_95_of_100(count: int) -> None:
    rng = np.random.default_rng(count)
    held = 0
    for _ in range(2000):
        drawn = dict(enumerate(rng.normal(0.3, 1.0, count)))
        _, low, high, seeds = made.paired(drawn, dict.fromkeys(drawn, 0.0))
        assert seeds == count
        held += low <= 0.3 <= high
    assert 0.935 <= held / 2000 <= 0.965


def test_without_pairs_there_is_no_difference() -> None:
    assert made.paired({0: 1.0}, {1: 1.0})[3] == 0
    assert made.difference({0: 1.0}, {1: 1.0}) == "–"
    mean, low, high, seeds = made.paired({0: 0.5, 1: 0.1}, {0: 0.4, 2: 0.4})
    assert mean == pytest.approx(0.1)
    assert seeds == 1
    assert math.isnan(low)
    assert math.isnan(high)
    _, low, high, _ = made.paired(dict.fromkeys(range(40), 1.0), dict.fromkeys(range(40), 0.0))
    assert low == high == 1.0  # more seeds than the table of t has


def test_classes_are_apart() -> None:
    lines = {line[0]: line[1:] for line in cells(made.by_class(ROWS, "bccd"))}
    assert lines["curve"] == [
        "RBC, ordinary light", "Platelets, ordinary light", "RBC, a tenth", "Platelets, a tenth", "seeds",
    ]  # fmt: skip
    assert lines["γ (ours), 2 bits"] == ["0.750", "0.650", "0.375", "0.275", "1"]
    assert lines["γ (ours), 4 bits − linear, 4 bits, points (95 %)"][1] == "+9.5 (+3.1 … +15.9)"


def test_bytes_are_those_of_the_rows() -> None:
    unmeasured = row("log", 4, 0, 0.6)
    lines = {line[1]: line[2:] for line in cells(made.sizes([*ROWS, unmeasured]))}
    assert lines["12-bit counts"] == ["115,200", "–", "–", "–", "–", "1.0×"]
    assert lines["γ (ours), 4 bits"] == ["38,520", "11,000", "5,500", "1.15", "0.57", "10.5×"]
    assert lines["JPEG, quality 90"] == ["–", "22,000", "44,000", "2.29", "4.58", "5.2×"]
    assert lines["logarithm, 4 bits"] == ["–"] * 6


def test_coders_of_frames() -> None:
    jpeg = {"coder": "jpeg-50 bright", "bytes_mean": 6460.6, "bits_per_photosite": 0.673}
    ours = {"coder": "context", "bits_per_photosite": 1.1483, "encode_ms": 12.3, "decode_ms": 10.52}
    rows = [jpeg | {"bits": None}, ours | {"bits": 2, "bits_per_photosite": 0.2644}, ours | {"bits": 4}]
    measured = {"rows": [{"dataset": "bccd"} | one for one in rows]}
    assert cells(made.frame_coders(measured))[2:] == [
        ["BCCD", "ours", "0.264", "1.148", "12.3 / 10.5 ms"],
    ]
    assert cells(made.frame_coders(measured))[0][2:4] == ["2 bits", "4 bits"]
    assert cells(made.frame_jpegs(measured))[2:] == [["BCCD", "jpeg-50 bright", "6,461", "0.67"]]


def test_the_picture_has_a_panel_for_each_data_set_and_light(tmp_path: Path) -> None:
    both = [*ROWS, row("gamma", 3, 0, 0.9, 9000.0, task="penn_fudan")]
    text = bytes_picture(both, tmp_path / "bytes.svg").read_text()
    titles = [f"{name}, {light}" for name in ("Penn-Fudan", "BCCD") for light in ("ordinary light", "a tenth")]
    for shown in (*titles, "γ (ours)", "linear", "JPEG", "12-bit counts, packed", "q 90", "4 bits", "3 bits"):
        assert f">{shown}<" in text
    assert "γ as published" not in text
    assert bytes_picture(both, tmp_path / "again.svg").read_text() == text


def test_a_picture_needs_bytes(tmp_path: Path) -> None:
    with pytest.raises(GammawearError, match="--bytes"):
        bytes_picture([row("gamma", 4, 0, 0.8), row("none", 12, 0, 0.8)], tmp_path / "bytes.svg")
