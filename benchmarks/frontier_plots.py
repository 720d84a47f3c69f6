"""Pictures of rate against accuracy, from the stored results, into docs/plots/.

    python -m benchmarks.frontier_plots                             # frontier.svg, per-subject-<dataset>.svg
    python -m benchmarks.frontier_plots --data ../shared/data/har   # learned-curve-<dataset>.svg, too

A *point* is a row of ``frontier.json``: scores are shares (0.87), ``delta_macro_f1`` and its interval are the paired
difference to ``macro_f1_12bit_best`` in shares. *Selected* points are those whose rate and λ were chosen in each fold
on its validation subjects, as ``choices`` says. A *run* is a row of ``accuracy-<dataset>.jsonl``: one fold and seed.
The same data make the same bytes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, ScalarFormatter

from benchmarks.accuracy import read
from benchmarks.grid import ARCHIVES
from benchmarks.machine import RESULTS, ROOT
from models.bundle import SHIPPED, Bundle, load_bundle
from models.tasks import TASKS, load_material
from quantization.errors import GammawearError
from quantization.imu import Counts, unit_of

Row = Mapping[str, Any]

PLOTS: Final = ROOT / "docs" / "plots"
FULL_BITS: Final = 4
"""Codes of fewer bits get hollow markers."""
DRAWN: Final = ("none", "linear", "lsq", "gamma-paper", "gamma")
"""Quantizers in the picture of the frontier: those of the core grid. More would hide each other."""
COLUMNS: Final = 2
"""Panels side by side: what a page is wide enough for."""
MARGIN: Final = 0.005
"""Half a point of macro-F1: what may be lost."""
TWELVE_BITS: Final = ("none", 12)
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
"""Okabe and Ito's palette, told apart with every kind of colour vision; black is the 12-bit counts."""
MARKERS: Final = "osD^vP*X<>"
COMPARATORS: Final = {
    ("json", 1.0): "JSON",
    ("packed-12", 2.0): "12 bit packed",
    ("gzip-6", 2.0): "gzip",
    ("dpcm-rice", 2.0): "lossless DPCM",
}
"""Rows of lossless.json that get a vertical mark, by coder and packet_s."""

CURVES: Final = ("acc_y", "gyro_x")
"""Channels whose learned curve is drawn: training mirrors half of the windows, which leaves these as recorded."""


def save(figure: Figure, path: Path) -> Path:
    """Write a figure, white behind it on any page, without a date."""
    # Letters as letters, not as outlines: half the size, and readers can search and copy them.
    settings: dict[Any, Any] = {"svg.hashsalt": "gammawear", "svg.fonttype": "none", "path.simplify_threshold": 0.5}
    metadata = {"Date": None} if path.suffix == ".svg" else None
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context(settings):
        figure.savefig(path, dpi=120, facecolor="white", metadata=metadata)
    return path


def twelve_bits(point: Row) -> bool:
    """Whether it is a model on the ADC's counts."""
    return (point["quantizer"], point["bits"]) == TWELVE_BITS


# -- frontier ---------------------------------------------------------------------------------------------------------


def family(point: Row) -> str:
    """What its colour stands for."""
    if twelve_bits(point):
        return "12-bit counts"
    loop = point.get("loop", "plain")
    return str(point["quantizer"]) if loop == "plain" else f"{point['quantizer']}, {loop}"


def frontier_picture(points: Sequence[Row], lossless: Sequence[Row], path: Path) -> Path:
    """Macro-F1 against all-in bits per second and channel, a panel for each data set.

    Lines join the points of one quantizer, number of bits and rate: along them λ varies. Bars are the 95 % interval of
    the paired difference to the best 12-bit model, around the point's score. The band ends half a point below that
    model. Stars are selected points. Vertical marks: lossless comparators at the rate that most folds select for 12
    bits.

    Args:
        points: rows of frontier.json of one network; those whose bits were not measured are left out.
        lossless: rows of lossless.json; those that do not fit are left out.
        path: SVG or PNG.

    Returns:
        The path.

    Raises:
        GammawearError: no points.
    """
    points = [point for point in points if point["bps_per_channel_all_in"] is not None]
    if not points:
        raise GammawearError("a frontier needs points: run the frontier benchmark first")
    datasets = sorted({point["dataset"] for point in points})
    names = sorted({family(point) for point in points if not twelve_bits(point)})
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)} | {"12-bit counts": "black"}
    rates = sorted({point["rate_hz"] for point in points if not point.get("selected")}, reverse=True)
    markers = {rate: MARKERS[index % len(MARKERS)] for index, rate in enumerate(rates)}

    columns = min(COLUMNS, len(datasets))
    lines_of_panels = -(-len(datasets) // columns)
    figure = Figure(figsize=(1.6 + 5.6 * columns, 4.4 * lines_of_panels), layout="constrained")
    for index, dataset in enumerate(datasets):
        axes = figure.add_subplot(lines_of_panels, columns, index + 1)
        here = [point for point in points if point["dataset"] == dataset]
        lines: dict[tuple[str, int, float], list[Row]] = {}
        for point in here:
            if point.get("selected"):
                x, y = point["bps_per_channel_all_in"], point["macro_f1"]
                axes.plot(x, y, "*", color=colours[family(point)], markersize=14, markeredgecolor="white", zorder=4)
            else:
                lines.setdefault((family(point), point["bits"], point["rate_hz"]), []).append(point)
        for (name, bits, rate_hz), members in lines.items():
            _line(axes, members, colours[name], markers[rate_hz], hollow=bits < FULL_BITS)
        if here[0]["macro_f1_12bit_best"] is not None:
            _reference(axes, here[0]["macro_f1_12bit_best"])
        axes.set_xscale("log")
        reference_hz = _reference_rate(here)
        _marks(axes, [row for row in lossless if row["dataset"] == dataset and row["rate_hz"] == reference_hz])
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(LogLocator(subs=()))
        axes.grid(visible=True, color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_title(dataset, fontsize=10)
        axes.set_xlabel("bits per second and channel, header included")
        axes.set_ylabel("macro-F1")
    grey: dict[str, Any] = {"color": "0.35", "linestyle": ""}
    handles = [Line2D([], [], color=colour, linewidth=3, label=name) for name, colour in colours.items()]
    handles += [Line2D([], [], marker=marker, label=f"{rate:g} Hz", **grey) for rate, marker in markers.items()]
    if any(point["bits"] < FULL_BITS for point in points):
        handles.append(Line2D([], [], marker="o", markerfacecolor="white", label=f"below {FULL_BITS} bits", **grey))
    if any(point.get("selected") for point in points):
        handles.append(Line2D([], [], marker="*", markersize=12, label="selected in each fold", **grey))
    figure.legend(handles=handles, loc="outside right upper", fontsize=8, frameon=False)
    return save(figure, path)


def _reference_rate(points: Sequence[Row]) -> float | None:
    """The rate that most folds select for 12 bits, the higher one of two; without selection, that of the best score."""
    twelve = [point for point in points if twelve_bits(point)]
    for point in twelve:
        if point.get("selected"):
            rates = [choice["rate_hz"] for choice in point["choices"].values()]
            return float(max(rates, key=lambda rate: (rates.count(rate), rate)))
    return float(max(twelve, key=lambda point: point["macro_f1"])["rate_hz"]) if twelve else None


def _line(axes: Axes, members: Sequence[Row], colour: str, marker: str, *, hollow: bool) -> None:
    ordered = sorted(members, key=lambda point: point["bps_per_channel_all_in"])
    x = [point["bps_per_channel_all_in"] for point in ordered]
    y = [point["macro_f1"] for point in ordered]
    face = "white" if hollow else colour
    axes.plot(x, y, color=colour, marker=marker, markerfacecolor=face, linewidth=1.3, markersize=5, zorder=3)
    for point in ordered:
        if point["delta_low"] is not None and not twelve_bits(point):
            best = point["macro_f1"] - point["delta_macro_f1"]
            ends = (best + point["delta_low"], best + point["delta_high"])
            axes.plot([point["bps_per_channel_all_in"]] * 2, ends, color=colour, linewidth=0.8, alpha=0.6, zorder=2)


def _reference(axes: Axes, best: float) -> None:
    axes.axhspan(best - MARGIN, best, color="0.88", zorder=0)
    axes.axhline(best, color="black", linewidth=0.9)
    axes.axhline(best - MARGIN, color="black", linewidth=0.9, linestyle="--")
    text: dict[str, Any] = {"fontsize": 7, "color": "0.25", "ha": "right", "transform": axes.get_yaxis_transform()}
    axes.text(0.995, best, "best 12-bit model", va="bottom", **text)
    axes.text(0.995, best - MARGIN, "half a point less", va="top", **text)


def _marks(axes: Axes, rows: Sequence[Row]) -> None:
    marked = [row for row in rows if (row["coder"], row["packet_s"]) in COMPARATORS]
    for index, row in enumerate(sorted(marked, key=lambda row: row["bps_per_channel_all_in"])):
        x = row["bps_per_channel_all_in"]
        axes.axvline(x, color="0.45", linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
        # Neighbours may be a few pixels apart: their names stand at two heights.
        axes.annotate(
            f"{COMPARATORS[row['coder'], row['packet_s']]}, {row['rate_hz']:g} Hz",
            (x, 0.02 + 0.3 * (index % 2)), xycoords=axes.get_xaxis_transform(), rotation=90,
            xytext=(-2, 0), textcoords="offset points", ha="right", va="bottom", fontsize=7, color="0.25",
        )  # fmt: skip


# -- subjects ---------------------------------------------------------------------------------------------------------


def subject_means(runs: Sequence[Row]) -> dict[str, float]:
    """Macro-F1 of each subject, the mean over the runs that tested it."""
    scores: dict[str, list[float]] = {}
    for run in runs:
        for subject, value in run["per_subject_macro_f1"].items():
            scores.setdefault(subject, []).append(value)
    return {subject: float(np.mean(values)) for subject, values in sorted(scores.items())}


def subjects_picture(ours: Sequence[Row], twelve: Sequence[Row], labels: tuple[str, str], path: Path) -> Path:
    """Macro-F1 of every subject, ours against 12 bits, sorted by the latter.

    Args:
        ours: runs of one setting.
        twelve: runs on 12-bit counts.
        labels: what to call them, in that order.
        path: SVG or PNG.

    Returns:
        The path.

    Raises:
        GammawearError: no subject is in both.
    """
    found, reference = subject_means(ours), subject_means(twelve)
    names = sorted(found.keys() & reference.keys(), key=lambda subject: reference[subject])
    if not names:
        raise GammawearError("no subject was tested in both settings: run both on the same folds")
    y = np.arange(len(names))
    left, right = np.array([reference[n] for n in names]), np.array([found[n] for n in names])
    figure = Figure(figsize=(6.4, 1.4 + 0.2 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    axes.hlines(y, left, right, color="0.7", linewidth=1.6, zorder=1)
    axes.plot(left, y, "o", color="black", markerfacecolor="white", label=labels[1])
    axes.plot(right, y, "o", color=COLOURS[0], label=labels[0])
    axes.set_yticks(y, names, fontsize=7)
    axes.set_ylim(-0.8, len(names) - 0.2)
    axes.grid(visible=True, axis="x", color="0.92", linewidth=0.6)
    axes.set_xlabel("macro-F1")
    difference = 100 * (right - left)
    axes.set_title(
        f"mean difference {difference.mean():+.1f} points; better for {np.sum(difference > 0)}, "
        f"worse for {np.sum(difference < 0)} of {len(names)} people",
        fontsize=9,
    )
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return save(figure, path)


def runs_of(point: Row, runs: Sequence[Row]) -> list[Row]:
    """The runs of a selected point: in each fold, those at the rate, bits and λ that were chosen there."""
    return [
        run
        for run in runs
        if (run["network"], run["quantizer"], run["loop"]) == (point["model"], point["quantizer"], point["loop"])
        and {"rate_hz": run["rate_hz"], "bits": run["bits"], "lambda": run["rate_weight"]}
        == point["choices"].get(str(run["fold"]))
    ]


def _named(point: Row) -> str:
    name = "12-bit counts" if twelve_bits(point) else f"{point['quantizer']}, coded"
    return f"{name}, {point['bps_per_channel_all_in']:.0f} bit/s and channel"


# -- learned curve ----------------------------------------------------------------------------------------------------


def histogram_picture(bundle: Bundle, counts: Counts, channels: Sequence[str], path: Path) -> Path:
    """What a codebook learned: its thresholds over the histogram of its training data, a panel for each channel.

    Args:
        bundle: codebook and sensor.
        counts: ``[n, channels of the sensor]`` of the training data.
        channels: those to draw.
        path: SVG or PNG.

    Returns:
        The path.
    """
    codebook, sensor = bundle.codebook, bundle.sensor
    physical = sensor.to_physical(counts)
    figure = Figure(figsize=(5.2 * len(channels), 3.6), layout="constrained")
    for index, channel in enumerate(channels):
        axes = figure.add_subplot(1, len(channels), index + 1)
        column = sensor.channels.index(channel)
        thresholds = codebook.thresholds[column]
        # Nearly all of the data and the whole curve; the ADC's full scale would leave both a few pixels.
        low, high = np.quantile(physical[:, column], [0.0005, 0.9995])
        low, high = min(low, thresholds[0]), max(high, thresholds[-1])
        lsb = sensor.lsb[column]
        # Bins of whole counts: others would beat with the grid of the data.
        width = lsb * max(1, round((high - low) / (80 * lsb)))
        edges = np.arange(low - width, high + 2 * width, width) // width * width - lsb / 2
        share, _ = np.histogram(physical[:, column], edges)
        axes.stairs(100 * share / len(physical), edges, fill=True, color="0.75")
        # Steps of a linear quantizer of as many bits over the ADC's range, for comparison.
        top = (sensor.count_max + 0.5) * lsb
        linear = np.linspace(-top, top, len(thresholds) + 2)[1:-1]
        transform = axes.get_xaxis_transform()
        axes.vlines(thresholds, 0, 0.93, transform=transform, color=COLOURS[0], linewidth=0.9, label="learned")
        shown = linear[(linear >= edges[0]) & (linear <= edges[-1])]
        axes.vlines(shown, 0.95, 1, transform=transform, color=COLOURS[1], linewidth=1.6, label="linear")
        axes.set_yscale("symlog", linthresh=0.1, linscale=0.3)
        axes.set_ylim(0, 100)
        axes.set_yticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
        axes.set_xlim(edges[0], edges[-1])
        axes.set_xlabel(f"{channel}, {unit_of(channel).replace('deg/s', '°/s')}")
        axes.set_ylabel("% of samples in a bin")
    title = f"{bundle.reference}: thresholds between {2**codebook.bits} codes over the training data"
    figure.suptitle(title, fontsize=10)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return save(figure, path)


def training_counts(bundle: Bundle, dataset: str, folder: Path) -> Counts:
    """What the bundle's ADC gives of the people that it learned from."""
    task = replace(TASKS[dataset], rate_hz=bundle.manifest.rate_hz)
    material = load_material(task, folder / ARCHIVES[dataset])
    segments = material.of(bundle.manifest.data.train_subjects)
    return bundle.sensor.to_counts(np.concatenate([segment.values for segment in segments]))


# -- command line -----------------------------------------------------------------------------------------------------


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cnn", help="network of the frontier")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--data", type=Path, help="folder of the archives: draw learned curves over their histograms")
    parser.add_argument("--out", type=Path, default=PLOTS)
    arguments = parser.parse_args()
    stored: Path = arguments.results
    frontier, lossless = stored / "frontier.json", stored / "lossless.json"
    if frontier.exists():
        everything = json.loads(frontier.read_text(encoding="utf-8"))
        points = [point for point in everything if point["model"] == arguments.model]
        rows = json.loads(lossless.read_text(encoding="utf-8"))["rows"] if lossless.exists() else []
        drawn = [p for p in points if p["loop"] == "plain" and p["quantizer"] in DRAWN]
        frontier_picture(drawn, rows, arguments.out / "frontier.svg")
        for dataset in sorted({point["dataset"] for point in points}):
            selected = [p for p in points if p["dataset"] == dataset and p["selected"]]
            twelve = [point for point in selected if twelve_bits(point)]
            ours = [point for point in selected if not twelve_bits(point)]
            if twelve and ours:
                runs = read(stored / f"accuracy-{dataset}.jsonl")
                out = arguments.out / f"per-subject-{dataset}.svg"
                labels = _named(ours[0]), _named(twelve[0])
                subjects_picture(runs_of(ours[0], runs), runs_of(twelve[0], runs), labels, out)
    if arguments.data is not None:
        for task in (task for task in TASKS.values() if any(SHIPPED.glob(f"{task.bundle}@*"))):
            bundle = load_bundle(task.bundle)
            channels = [channel for channel in CURVES if channel in bundle.sensor.channels]
            counts = training_counts(bundle, task.dataset, arguments.data)
            histogram_picture(bundle, counts, channels, arguments.out / f"learned-curve-{task.dataset}.svg")


if __name__ == "__main__":
    main()
