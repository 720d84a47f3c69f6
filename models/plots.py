"""Pictures of results. Needs matplotlib (the ``train`` extra)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from models.evaluate import Report
from quantization.codebook import Codebook
from quantization.errors import GammawearError
from quantization.imu import unit_of


def confusion_picture(report: Report, path: Path) -> Path:
    """Write the confusion matrix, rows normalised to the truth, to a PNG or SVG file and return its path.

    Raises:
        GammawearError: matplotlib is not installed.
    """
    figure_class = _figure()
    table = report.scores.confusion
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    size = 2.6 + 0.55 * len(table)
    figure = figure_class(figsize=(size + 0.6, size), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(share, vmin=0, vmax=1, cmap="Blues")
    for row, column in np.ndindex(*table.shape):
        if table[row, column]:
            dark = share[row, column] > 0.5
            text = f"{100 * share[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    names = [label.replace("_", " ").lower() for label in report.labels]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("recognised")
    axes.set_ylabel("truth")
    axes.set_title(
        f"{report.bundle} on {len(report.subjects)} subjects: macro-F1 {report.scores.macro_f1:.3f}", fontsize=10
    )
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the truth")
    figure.savefig(path, dpi=120)
    return path


def curve_picture(codebook: Codebook, path: Path) -> Path:
    """Write the learned staircase of every channel to a PNG or SVG file and return its path.

    Raises:
        GammawearError: matplotlib is not installed.
    """
    figure_class = _figure()
    units = sorted({unit_of(channel) for channel in codebook.channels}, reverse=True)
    figure = figure_class(figsize=(5 * len(units), 3.6), layout="constrained")
    for index, unit in enumerate(units):
        axes = figure.add_subplot(1, len(units), index + 1)
        for row, channel in enumerate(codebook.channels):
            if unit_of(channel) == unit:
                edges = codebook.thresholds[row]
                span = edges[-1] - edges[0] or max(1.0, abs(edges[0]))  # one bit has one edge
                ends = np.array([edges[0] - 0.1 * span, *edges, edges[-1] + 0.1 * span])
                axes.stairs(np.arange(len(ends) - 1), ends, label=channel, baseline=None)
        axes.set_xlabel(unit.replace("deg/s", "°/s"))
        axes.set_ylabel("code")
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    return path


def _figure() -> Any:  # noqa: ANN401 - matplotlib may be absent
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise GammawearError("pictures need matplotlib: pip install 'gammawear[train]'") from error
    return Figure
