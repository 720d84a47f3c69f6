"""Tables of the accuracy runs, in Markdown: one row a setting; scores with their spread, differences with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from benchmarks.frontier import PACKET_S, Setting, best_reference, over_folds, paired, stored_settings
from benchmarks.grid import ARCHIVES, FOLDS, FOREST, Point
from models.tasks import TASKS

Settings = Mapping[Point, Setting]
NAMES: Final = {
    "none": "12-bit counts",
    "linear": "linear, ADC's range",
    "lsq": "linear, learned range (LSQ+)",
    "gamma-paper": "γ as published",
    "gamma": "γ, learned range (ours)",
    "mu-law": "μ-law",
    "lloyd-max": "Lloyd–Max",
    "thresholds": "free thresholds (N2UQ)",
}
ORDER: Final = list(NAMES)


def rows(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *lines])


def score(setting: Setting) -> str:
    """Mean ± standard deviation over folds."""
    mean, spread = over_folds(setting.test)
    return f"{mean:.3f} ± {spread:.3f}"


def points(delta: tuple[float, float, float]) -> str:
    """A difference in points with its interval."""
    mean, low, high = (100 * value for value in delta)
    return "–" if np.isnan(mean) else f"{mean:+.1f} ({low:+.1f} … {high:+.1f})"


def same_rate(setting: Setting, everything: Settings) -> Setting | None:
    """The 12-bit setting of the same network and rate."""
    rate, network, *_ = setting.point
    return everything.get((rate, network, "none", 12, 0.0, "plain"))


def _select(everything: Settings, keep: Callable[[Setting], bool]) -> list[Setting]:
    chosen = [s for s in everything.values() if keep(s)]
    return sorted(chosen, key=lambda s: (-s.point[3], s.point[1], -s.point[0], ORDER.index(s.point[2]), s.point[4:]))


def quantizers(everything: Settings, rate_hz: float) -> str:
    """Every quantizer and bit depth at one rate, one network."""
    chosen = _select(everything, lambda s: s.point[:2] == (rate_hz, "cnn") and s.point[4:] == (0.0, "plain"))
    lines = []
    for setting in chosen:
        reference = same_rate(setting, everything)
        delta = (
            "reference" if setting.is_reference else points(paired(setting.test, reference.test if reference else {}))
        )
        coded = f"{_mean_bits(setting):.2f}" if setting.rates else "–"
        lines.append(
            [NAMES[setting.point[2]], str(setting.point[3]), score(setting), delta, coded, str(len(setting.test))]
        )
    header = [
        "quantizer",
        "bits",
        "macro-F1 ± SD",
        "difference to 12 bits, points (95 %)",
        "coded bits a sample",
        "runs",
    ]
    return rows(header, lines)


def _mean_bits(setting: Setting, kind: str = "payload") -> float:
    return over_folds({key: setting.bits(kind, key) for key in setting.rates})[0]


def parity() -> str:
    """4-bit quantizers against 12 bits on every data set, and their mean over data sets."""
    kinds = [(kind, bits) for bits in (4, 2) for kind in ("gamma", "lsq", "gamma-paper", "linear")]
    table: dict[tuple[str, int], dict[str, float]] = {kind: {} for kind in kinds}
    lines: dict[tuple[str, int], list[str]] = {(k, b): [NAMES[k], str(b)] for k, b in kinds}
    shown = [d for d in ARCHIVES if (TASKS[d].rate_hz, "cnn", "none", 12, 0.0, "plain") in stored_settings(d)]
    for dataset in shown:
        everything, native = stored_settings(dataset), TASKS[dataset].rate_hz
        reference = everything[(native, "cnn", "none", 12, 0.0, "plain")]
        for kind, bits in kinds:
            setting = everything.get((native, "cnn", kind, bits, 0.0, "plain"))
            delta = paired(setting.test if setting else {}, reference.test)
            lines[kind, bits].append(points(delta))
            if not np.isnan(delta[0]):
                table[kind, bits][dataset] = delta[0]
    for kind in kinds:
        found = table[kind]
        lines[kind].append(f"{100 * np.mean(list(found.values())):+.1f}" if len(found) == len(shown) else "–")
    return rows(["quantizer", "bits", *shown, "mean"], lines.values())


def frontier(everything: Settings) -> str:
    """γ, entropy coded, by sampling rate, bits and λ; the 12-bit model at each rate."""
    chosen = _select(
        everything, lambda s: s.point[1] == "cnn" and s.point[2] in {"none", "gamma"} and s.point[5] == "plain"
    )
    chosen.sort(key=lambda s: (-s.point[0], -s.point[3], s.point[4]))
    best = {key: v for fold, s in best_reference(chosen, "cnn").items() for key, v in s.test.items() if key[0] == fold}
    lines = [
        [
            f"{setting.point[0]:g}",
            "12-bit counts" if setting.is_reference else f"{setting.point[3]} bit, λ = {setting.point[4]:g}",
            score(setting),
            points(paired(setting.test, best)),
            *_bandwidth(setting),
            str(len(setting.test)),
        ]
        for setting in chosen
    ]
    header = [
        "Hz", "", "macro-F1 ± SD", "difference to the best 12-bit model, points (95 %)", "bits a sample", "b/s payload",
        "b/s packet", "b/s PUBLISH", "runs",
    ]  # fmt: skip
    return rows(header, lines)


def _bandwidth(setting: Setting) -> list[str]:
    rate = setting.point[0]
    if setting.is_reference:
        return ["12", f"{12 * rate:.0f}", "", ""]
    if not setting.rates:
        return ["–"] * 4
    return [
        f"{_mean_bits(setting):.2f}",
        *(f"{rate * _mean_bits(setting, kind):.0f}" for kind in ("payload", "all_in", "publish")),
    ]


def selected(points_of: Sequence[dict[str, Any]]) -> str:
    """What each fold's validation subjects chose, on its test subjects."""
    lines = []
    for point in points_of:
        if not point["selected"] or point["quantizer"] == "none":
            continue
        choices = ", ".join(f"{c['rate_hz']:g} Hz {c['bits']} bit λ {c['lambda']:g}" for c in point["choices"].values())
        delta = points((point["delta_macro_f1"], point["delta_low"], point["delta_high"]))
        lines.append([
            point["dataset"], point["rule"], f"{point['macro_f1']:.3f} ± {point['macro_f1_sd']:.3f}",
            f"{point['macro_f1_12bit_best']:.3f}", delta, f"{point['bps_per_channel_payload']:.0f}",
            f"{point['bps_per_channel_all_in']:.0f}", f"{point['bps_per_channel_publish']:.0f}", choices,
        ])  # fmt: skip
    header = [
        "data set", "rule", "ours", "best 12-bit model", "difference, points (95 %)", "b/s payload", "b/s packet",
        "b/s PUBLISH",
        "chosen, fold by fold",
    ]  # fmt: skip
    return rows(header, lines)


def networks(everything: Settings, rate_hz: float) -> str:
    """Every network at one rate, 12 bits and γ at 4."""
    names = sorted({point[1] for point in everything})
    lines = []
    for name in names:
        pair = [everything.get((rate_hz, name, k, b, 0.0, "plain")) for k, b in (("none", 12), ("gamma", 4))]
        if not all(pair):
            continue
        reference, ours = pair
        assert reference is not None and ours is not None  # noqa: S101, PT018 - for the type checker
        lines.append(
            [name, score(reference), score(ours), points(paired(ours.test, reference.test)), str(len(ours.test))]
        )
    return rows(["network", "12 bit", "γ 4 bit", "difference, points (95 %)", "runs"], lines)


def loops(everything: Settings, rate_hz: float) -> str:
    """What a device might do beyond comparing with thresholds."""
    chosen = _select(
        everything,
        lambda s: (
            s.point[:3] == (rate_hz, "cnn", "gamma") and (s.point[5] != "plain" or s.point[3:5] in {(4, 0), (4, 0.1)})
        ),
    )
    chosen.sort(key=lambda s: (s.point[5] != "plain", s.point[5], s.point[4]))
    plain = {s.point[4]: s for s in chosen if s.point[5] == "plain" and s.point[3] == 4}
    lines = [
        [
            setting.point[5],
            str(setting.point[3]),
            f"{setting.point[4]:g}",
            score(setting),
            points(paired(setting.test, plain[setting.point[4]].test)) if setting.point[4] in plain else "–",
            f"{setting.point[0] * _mean_bits(setting):.0f}" if setting.rates else "–",
            str(len(setting.test)),
        ]
        for setting in chosen
    ]
    return rows(
        ["loop", "bits", "λ", "macro-F1 ± SD", "difference to plain, points (95 %)", "b/s payload", "runs"], lines
    )


def lossless(stored: dict[str, Any], dataset: str, rate_hz: float) -> str:
    """The 12-bit stream, losslessly compressed, in packets of 2 s and as a whole."""
    by_coder: dict[str, dict[float | None, dict[str, Any]]] = {}
    for row in stored["rows"]:
        if row["dataset"] == dataset and row["rate_hz"] == rate_hz:
            by_coder.setdefault(row["coder"], {})[row["packet_s"]] = row
    lines = []
    for coder, found in by_coder.items():
        packet, whole = found.get(PACKET_S), found.get(None)
        lines.append([
            coder,
            f"{packet['bits_per_sample_payload']:.2f}" if packet else "–",
            f"{packet['bps_per_channel_payload']:.0f}" if packet else "–",
            f"{packet['bps_per_channel_all_in']:.0f}" if packet else "–",
            f"{whole['bps_per_channel_payload']:.0f}" if whole else "–",
        ])  # fmt: skip
    header = ["coder", "bits a sample", "b/s payload", "b/s packet", "b/s as one file a person"]
    return rows(header, lines)


SHORT_LIST: Final = ("packed-12", "gzip-6", "zstd-19", "delta-rice", "dpcm-rice", "packed-4")


def lossless_everywhere(stored: dict[str, Any]) -> str:
    """Payload bits a second of one channel in packets of 2 s, one line for each data set and rate."""
    lines = []
    for dataset in ARCHIVES:
        for rate_hz in sorted({r["rate_hz"] for r in stored["rows"] if r["dataset"] == dataset}, reverse=True):
            here = {
                r["coder"]: r["bps_per_channel_payload"]
                for r in stored["rows"]
                if (r["dataset"], r["rate_hz"], r["packet_s"]) == (dataset, rate_hz, 2.0)
            }
            lines.append([dataset, f"{rate_hz:g}", *(f"{here[coder]:,.0f}" for coder in SHORT_LIST)])
    return rows(["data set", "Hz", *SHORT_LIST], lines)


def headline(points_of: Sequence[dict[str, Any]], stored: dict[str, Any], dataset: str) -> str:
    """Bits a second of one channel: as people send it today, lossless, and ours at parity."""

    def lossless_row(coder: str, rate_hz: float, packet_s: float) -> dict[str, Any]:
        return next(
            row
            for row in stored["rows"]
            if (row["dataset"], row["coder"], row["rate_hz"], row["packet_s"]) == (dataset, coder, rate_hz, packet_s)
        )

    native = TASKS[dataset].rate_hz
    lines = [
        [name, f"{row['bps_per_channel_payload']:,.0f}", f"{row['bps_per_channel_publish']:,.0f}", ""]
        for name, row in (
            (f"JSON, floats, {native:g} Hz", lossless_row("json", native, 1.0)),
            (f"12 bit, packed, {native:g} Hz", lossless_row("packed-12", native, PACKET_S)),
            (f"12 bit, best lossless coder in packets, {native:g} Hz", lossless_row("dpcm-rice", native, PACKET_S)),
        )
    ]
    best = next(p for p in points_of if p["selected"] and p["dataset"] == dataset and p["quantizer"] == "none")
    ours = [p for p in points_of if p["selected"] and p["dataset"] == dataset and p["quantizer"] == "gamma"]
    named = [("12 bit, packed, at the best rate", best), *((f"γ, entropy coded (ours), {p['rule']}", p) for p in ours)]
    for name, point in named:
        lines.append([
            name, f"{point['bps_per_channel_payload']:,.0f}", f"{point['bps_per_channel_publish']:,.0f}",
            f"{point['macro_f1']:.3f} ± {point['macro_f1_sd']:.3f}",
        ])  # fmt: skip
    return rows(["one channel", "b/s payload", "b/s MQTT PUBLISH", "macro-F1 ± SD"], lines)


def forests() -> str:
    """The CNN beside a random forest on the same input, at each task's own rate."""
    lines = []
    for dataset in ARCHIVES:
        everything, native = stored_settings(dataset), TASKS[dataset].rate_hz
        for kind, bits in (("none", 12), ("gamma", 4), ("linear", 4)):
            cnn = everything.get((native, "cnn", kind, bits, 0.0, "plain"))
            forest = everything.get((native, FOREST, kind, bits, 0.0, "plain"))
            if cnn and forest and len(forest.test) >= FOLDS:  # part of the folds would be compared with all
                delta = points(paired(cnn.test, forest.test))
                lines.append([dataset, NAMES[kind], str(bits), score(forest), score(cnn), delta, str(len(forest.test))])
    header = ["data set", "input", "bits", "random forest", "CNN", "CNN − forest, points (95 %)", "runs"]
    return rows(header, lines)


def coder() -> str:
    """Entropies beside what the coder takes: γ at 4 bits, one line a rate and λ."""
    lines = []
    for dataset in ARCHIVES:
        chosen = [
            s
            for s in stored_settings(dataset).values()
            if s.rates and s.point[1:4] == ("cnn", "gamma", 4) and s.point[5] == "plain"
        ]
        for setting in sorted(chosen, key=lambda s: (-s.point[0], s.point[4])):
            entropy, length = (
                over_folds({key: row[name] for key, row in setting.rates.items()})[0]
                for name in ("conditional_entropy", "code_length")
            )
            payloads = [
                over_folds({key: setting.bits("payload", key, seconds) for key in setting.rates})[0]
                for seconds in (1.0, 2.0)
            ]
            lines.append([
                dataset, f"{setting.point[0]:g}", f"{setting.point[4]:g}", f"{entropy:.3f}", f"{length:.3f}",
                *(f"{bits:.3f}" for bits in payloads),
            ])  # fmt: skip
    header = [
        "data set", "Hz", "λ", "entropy given the code before", "code length by the codebook", "bytes, packets of 1 s",
        "bytes, packets of 2 s",
    ]  # fmt: skip
    return rows(header, lines)


def parity_short() -> str:
    """4 bits against 12, learned and linear, one line a data set."""
    lines = []
    for dataset in ARCHIVES:
        everything, native = stored_settings(dataset), TASKS[dataset].rate_hz
        reference = everything.get((native, "cnn", "none", 12, 0.0, "plain"))
        if reference is None:
            continue
        learned, linear = (everything.get((native, "cnn", kind, 4, 0.0, "plain")) for kind in ("gamma", "linear"))
        deltas = [points(paired(s.test if s else {}, reference.test)) for s in (learned, linear)]
        lines.append([dataset, score(reference), *deltas])
    return rows(["data set", "12 bit, macro-F1 ± SD", "γ 4 bit (ours)", "linear 4 bit"], lines)
