"""AP50 of detectors against the bytes of a frame, from the stored runs, into docs/plots/.

    python -m benchmarks.detection_plots    # docs/plots/detection-bytes.svg

Curves' frames are coded without loss and counted as sent, with the chunks' headers; JPEGs as the files they are; 12-bit
counts as they are packed, without any header. Penn-Fudan's runs are those of 120 epochs, BCCD's those of 30. Runs whose
bytes were not measured are left out (``python -m benchmarks.detection --bytes`` measures them). The same data make the
same bytes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from benchmarks.accuracy import read
from benchmarks.detection import FILE, LONG_FILE
from benchmarks.detection_tables import LIGHTS, NAMES, PACKED_12, REFERENCE, TASK_NAMES, Row, Tested, tasks_of, tested
from benchmarks.frontier_plots import COLOURS, PLOTS, save
from quantization.errors import GammawearError

PENN_FUDAN_EPOCHS: Final = 120
SHOWN_LIGHTS: Final = ("1", "0.1")
STYLES: Final = {
    "gamma": (COLOURS[0], "o"),
    "gamma-unweighted": (COLOURS[4], "p"),
    "gamma-small": ("#777777", "P"),
    "gamma-paper": (COLOURS[5], "v"),
    "log": (COLOURS[2], "D"),
    "linear": (COLOURS[1], "s"),
    "jpeg": (COLOURS[3], "^"),
}
"""Colour and marker of every curve; 12-bit counts are black."""


def bytes_picture(stored: Sequence[Row], path: Path) -> Path:
    """A panel for each data set and light: AP50, mean ± standard deviation over seeds, against bytes a frame.

    Lines join the numbers of bits of one curve, and the qualities of JPEG.

    Args:
        stored: rows of ``benchmarks.detection``.
        path: SVG or PNG.

    Returns:
        The path.

    Raises:
        GammawearError: no row has bytes.
    """
    by_task = {task: tested(stored, task) for task in tasks_of(stored)}
    by_task = {task: found for task, found in by_task.items() if any(one.sizes for one in found)}
    if not by_task:
        raise GammawearError("there are no runs with bytes: run python -m benchmarks.detection, also with --bytes")
    figure = Figure(figsize=(1.6 + 4.6 * len(by_task), 3.6 * len(SHOWN_LIGHTS)), layout="constrained")
    for row, light in enumerate(SHOWN_LIGHTS):
        for column, (task, found) in enumerate(by_task.items()):
            axes = figure.add_subplot(len(SHOWN_LIGHTS), len(by_task), row * len(by_task) + column + 1)
            _panel(axes, found, light)
            axes.set_title(f"{TASK_NAMES[task]}, {LIGHTS[light]}", fontsize=10)
    kinds = {one.key[0] for found in by_task.values() for one in found if one.sizes}
    handles = [
        Line2D([], [], color=colour, marker=marker, label=NAMES[kind])
        for kind, (colour, marker) in STYLES.items()
        if kind in kinds
    ]
    if any(one.key == REFERENCE for found in by_task.values() for one in found):
        handles.append(Line2D([], [], color="black", marker="*", linestyle="", label="12-bit counts, packed"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    return save(figure, path)


def _panel(axes: Axes, found: Sequence[Tested], light: str) -> None:
    for kind, (colour, marker) in STYLES.items():
        members = [one for one in found if one.key[0] == kind and one.sizes]
        members.sort(key=lambda one: one.size(light) or 0.0)
        placed = [(one.size(light) or 0.0, one) for one in members]
        style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1.3, "zorder": 3}
        axes.plot([x for x, _ in placed], [_mean(one, light) for _, one in placed], **style)
        for x, one in placed:
            _bar(axes, x, one, light, colour)
            _, bits, quality = one.key
            # JPEG's names stand above, the others' below: near each other they stay legible.
            text, offset, side = (f"q {quality}", 5, "bottom") if quality else (f"{bits} bits", -5, "top")
            axes.annotate(
                text, (x, _mean(one, light)), xytext=(0, offset), textcoords="offset points",
                ha="center", va=side, fontsize=6, color=colour,
            )  # fmt: skip
    for one in found:
        if one.key == REFERENCE:
            axes.axhline(_mean(one, light), color="black", linewidth=0.8, linestyle="--", zorder=1)
            axes.plot([PACKED_12], [_mean(one, light)], "*", color="black", markersize=10, zorder=3)
            _bar(axes, PACKED_12, one, light, "black")
    axes.set_xscale("log")
    axes.margins(y=0.12)  # for the names
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.tick_params(labelsize=8)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("bytes a frame")
    axes.set_ylabel("AP50")


def _mean(one: Tested, light: str) -> float:
    return float(np.mean(list(one.score(light).values())))


def _bar(axes: Axes, x: float, one: Tested, light: str, colour: str) -> None:
    values = list(one.score(light).values())
    if len(values) > 1:
        mean, half = np.mean(values), np.std(values, ddof=1)
        axes.plot([x, x], [mean - half, mean + half], color=colour, linewidth=0.8, alpha=0.7, zorder=2)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PLOTS / "detection-bytes.svg", help="SVG or PNG")
    arguments = parser.parse_args()
    stored = [row for row in read(FILE) if row["task"] == "bccd"]
    stored += [row for row in read(LONG_FILE) if row["epochs"] == PENN_FUDAN_EPOCHS]
    print(bytes_picture(stored, arguments.out))


if __name__ == "__main__":
    main()
