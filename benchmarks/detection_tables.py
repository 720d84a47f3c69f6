"""Tables of the detection runs, in Markdown, and what they are made of.

A :class:`Tested` is what a row of the tables is about: one curve at some bits, or the JPEG detector at one quality,
with its scores by seed. Spreads are standard deviations over seeds. Intervals of differences are Student's, over the
seeds that both have: they say how far other seeds would move the mean, not how far other test pictures would. One seed
has neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from benchmarks.tables import points, rows
from models.vision.shots import HEIGHT, WIDTH

Row = Mapping[str, Any]
Key = tuple[str, int, int]
"""Curve, bits, quality (0: not a JPEG)."""

NAMES: Final = {
    "none": "12-bit counts",
    "gamma": "γ (ours)",
    "gamma-unweighted": "γ, bytes not weighed",
    "gamma-small": "γ, bytes weighed more",
    "gamma-paper": "γ as published",
    "log": "logarithm",
    "linear": "linear",
    "linear-lifted": "linear, lifted",
    "jpeg": "JPEG",
}
ORDER: Final = list(NAMES)
TASK_NAMES: Final = {"penn_fudan": "Penn-Fudan", "penn_fudan_campus": "Penn-Fudan by campus", "bccd": "BCCD"}
LIGHTS: Final = {"1": "ordinary light", "0.25": "a quarter", "0.1": "a tenth"}
REFERENCE: Final = ("none", 12, 0)
OURS: Final = ("gamma", 4, 0)
UNWEIGHTED: Final = ("gamma-unweighted", 4, 0)
LINEAR: Final = ("linear", 4, 0)
LOG: Final = ("log", 4, 0)
COMPARED: Final = ("1", "0.1")
"""Lights of the differences."""
PACKED_12: Final = WIDTH * HEIGHT * 12 / 8
"""Bytes of a frame of 12-bit counts, packed without a header."""
T_975: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t at 97.5 %, for 1 to 9 degrees of freedom."""
SHOWN_CODERS: Final = {
    "packed": "plain packing",
    "packed-zlib-9": "deflate of that",
    "packed-zstd-19": "zstd of that, level 19",
    "png-9 planes": "PNG of the planes",
    "webp planes": "WebP of the planes",
    "jpeg-ls planes": "JPEG-LS of the planes",
    "jpeg-xl-7 planes": "JPEG XL of the planes, effort 7",
    "jpeg-xl-7 mosaic": "JPEG XL of the mosaic, effort 7",
    "jpeg-xl-9 planes": "JPEG XL of the planes, effort 9",
    "jpeg-xl-9 mosaic": "JPEG XL of the mosaic, effort 9",
    "context": "ours",
    "context-sent": "ours, as it is sent",
}
"""Rows of frame_bytes.json that are in the table."""


@dataclass
class Tested:
    """What was trained and tested alike, but for the seed.

    Args:
        task: of :data:`models.vision.tasks.TASKS`.
        key: what was tested.
        classes: names.
        scores: by seed and light: ``ap``, ``ap50``, ``ap50_by_class``.
        sizes: by seed and light: ``bytes_mean``, ``bits_per_photosite``. Empty where they were not measured.
        packed: mean bytes of a frame of plainly packed codes; None: not measured, or no codes.
    """

    task: str
    key: Key
    classes: tuple[str, ...]
    scores: dict[int, Row] = field(default_factory=dict)
    sizes: dict[int, Row] = field(default_factory=dict)
    packed: float | None = None

    @property
    def name(self) -> str:
        """For people."""
        kind, bits, quality = self.key
        if quality:
            return f"{NAMES[kind]}, quality {quality}"
        return NAMES[kind] if self.key == REFERENCE else f"{NAMES[kind]}, {bits} bits"

    def score(self, light: str, measure: str = "ap50") -> dict[int, float]:
        """One score in one light, by seed."""
        return {seed: by_light[light][measure] for seed, by_light in self.scores.items()}

    def of_class(self, light: str, index: int) -> dict[int, float]:
        """AP50 of one class in one light, by seed."""
        return {seed: by_light[light]["ap50_by_class"][index] for seed, by_light in self.scores.items()}

    def size(self, light: str, measure: str = "bytes_mean") -> float | None:
        """Mean over seeds of what a frame takes as it is sent; None: not measured."""
        found = [by_light[light][measure] for by_light in self.sizes.values()]
        return float(np.mean(found)) if found else None


def tested(stored: Sequence[Row], task: str) -> list[Tested]:
    """All that is stored of a task, in the tables' order."""
    found: dict[Key, Tested] = {}
    for row in stored:
        if row["task"] != task:
            continue
        parts = row["jpeg"].items() if row["curve"] == "jpeg" else [("0", row["light"])]
        for quality, by_light in parts:
            key = (row["curve"], row["bits"], int(quality))
            one = found.setdefault(key, Tested(task, key, tuple(row["classes"])))
            one.scores[row["seed"]] = by_light
            sizes = by_light if row["curve"] == "jpeg" else row.get("coded")
            if sizes is not None:
                one.sizes[row["seed"]] = sizes
            if "packed" in row:
                one.packed = row["packed"]["bytes_mean"]
    return sorted(found.values(), key=lambda one: (ORDER.index(one.key[0]), -one.key[1], -one.key[2]))


def tasks_of(stored: Sequence[Row]) -> list[str]:
    """Tasks that have rows, in order."""
    there = {row["task"] for row in stored}
    return [task for task in TASK_NAMES if task in there]


# -- numbers ----------------------------------------------------------------------------------------------------------


def spread(scores: Mapping[int, float]) -> str:
    """Mean ± standard deviation over seeds; of one seed, its score."""
    values = list(scores.values())
    mean = f"{np.mean(values):.3f}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1):.3f}"


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> tuple[float, float, float, int]:
    """Mean difference, its 95 % interval, and over how many seeds; NaN for what cannot be said."""
    seeds = sorted(ours.keys() & theirs.keys())
    differences = np.array([ours[seed] - theirs[seed] for seed in seeds])
    count = len(differences)
    if count < 2:
        return float(differences[0]) if count else np.nan, np.nan, np.nan, count
    # Beyond the table its last entry makes the interval a little too wide.
    t = T_975[min(count - 1, len(T_975)) - 1]
    half = t * differences.std(ddof=1) / np.sqrt(count)
    mean = float(differences.mean())
    return mean, float(mean - half), float(mean + half), count


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> str:
    """A difference in points for a table."""
    mean, low, high, count = paired(ours, theirs)
    if count == 0:
        return "–"
    return f"{100 * mean:+.1f} (one seed)" if count == 1 else points((mean, low, high))


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


# -- tables -----------------------------------------------------------------------------------------------------------


def scores(stored: Sequence[Row], task: str) -> str:
    """AP50 and AP of every curve at every light."""
    lines = [
        [
            one.name,
            *(spread(one.score(light)) for light in LIGHTS),
            *(spread(one.score(light, "ap")) for light in LIGHTS),
            str(len(one.scores)),
        ]
        for one in tested(stored, task)
    ]
    lights = list(LIGHTS.values())
    return rows(
        ["curve", *(f"AP50, {light}" for light in lights), *(f"AP, {light}" for light in lights), "seeds"], lines
    )


def differences(stored: Sequence[Row]) -> str:
    """AP50 against 12 bits, and ours against linear steps and the logarithm, paired by seed."""
    lines = []
    for task in tasks_of(stored):
        found = {one.key: one for one in tested(stored, task)}
        pairs = [(one.key, REFERENCE) for one in found.values() if one.key != REFERENCE]
        pairs += [(key, other) for key in (OURS, UNWEIGHTED) for other in (LINEAR, LOG)]
        for key, other in pairs:
            if key not in found or other not in found:
                continue
            ours, theirs = found[key], found[other]
            cells = [difference(ours.score(light), theirs.score(light)) for light in COMPARED]
            shared = str(len(ours.scores.keys() & theirs.scores.keys()))
            lines.append([TASK_NAMES[task], f"{ours.name} − {theirs.name}", *cells, shared])
    header = ["data set", "difference", *(f"AP50 points (95 %), {LIGHTS[light]}" for light in COMPARED), "seeds"]
    return rows(header, lines)


def by_class(stored: Sequence[Row], task: str) -> str:
    """AP50 of every class, and how ours differs from 12 bits and from linear steps there."""
    found = {one.key: one for one in tested(stored, task)}
    if not found:
        return rows(["curve", "seeds"], [])
    classes = next(iter(found.values())).classes
    columns = [(light, index) for light in COMPARED for index in range(len(classes))]
    lines = [
        [one.name, *(spread(one.of_class(*column)) for column in columns), str(len(one.scores))]
        for one in found.values()
    ]
    for other in (REFERENCE, LINEAR):
        if OURS in found and other in found:
            ours, theirs = found[OURS], found[other]
            cells = [difference(ours.of_class(*column), theirs.of_class(*column)) for column in columns]
            shared = str(len(ours.scores.keys() & theirs.scores.keys()))
            lines.append([f"{ours.name} − {theirs.name}, points (95 %)", *cells, shared])
    return rows(["curve", *(f"{classes[index]}, {LIGHTS[light]}" for light, index in columns), "seeds"], lines)


def sizes(stored: Sequence[Row]) -> str:
    """Bytes of a frame, packed and coded, by curve."""
    lines = []
    for task in tasks_of(stored):
        for one in tested(stored, task):
            plain = PACKED_12 if one.key == REFERENCE else one.packed
            coded = {light: one.size(light) for light in COMPARED}
            bits = [one.size(light, "bits_per_photosite") for light in COMPARED]
            usual = plain if coded["1"] is None else coded["1"]
            lines.append([
                TASK_NAMES[task], one.name, _number(plain, ",.0f"),
                *(_number(value, ",.0f") for value in coded.values()), *(_number(value, ".2f") for value in bits),
                "–" if usual is None else f"{PACKED_12 / usual:.1f}×",
            ])  # fmt: skip
    header = [
        "data set", "curve", "bytes, packed",
        *(f"bytes as sent, {LIGHTS[light]}" for light in COMPARED),
        *(f"bits a photosite, {LIGHTS[light]}" for light in COMPARED), "below 12 bits packed, ordinary light",
    ]  # fmt: skip
    return rows(header, lines)


def frame_coders(measured: Mapping[str, Any]) -> str:
    """Lossless coders of the same codes, from ``frame_bytes.json``: bits a photosite, and times at 4 bits."""
    lines = []
    for task, title in TASK_NAMES.items():
        here = [row for row in measured["rows"] if row["dataset"] == task and row["bits"] is not None]
        depths = sorted({row["bits"] for row in measured["rows"] if row["bits"] is not None})
        for coder, name in SHOWN_CODERS.items():
            found = {row["bits"]: row for row in here if row["coder"] == coder}
            if found:
                cells = [f"{found[bits]['bits_per_photosite']:.3f}" if bits in found else "–" for bits in depths]
                times = f"{found[4]['encode_ms']:.1f} / {found[4]['decode_ms']:.1f} ms"
                lines.append([title, name, *cells, times])
    header = ["data set", "coder", "2 bits", "4 bits", "6 bits", "8 bits", "4 bits, encode / decode a frame"]
    return rows(header, lines)


def frame_jpegs(measured: Mapping[str, Any]) -> str:
    """What JPEGs of the same exposures take, from ``frame_bytes.json``."""
    lines = [
        [TASK_NAMES[row["dataset"]], row["coder"], f"{row['bytes_mean']:,.0f}", f"{row['bits_per_photosite']:.2f}"]
        for task in TASK_NAMES
        for row in measured["rows"]
        if row["dataset"] == task and row["bits"] is None
    ]
    return rows(["data set", "JPEG of the developed exposure", "bytes", "bits a photosite"], lines)
