"""From stored runs and rates to the points of the rate-accuracy frontier.

    python -m benchmarks.frontier      # writes benchmarks/results/frontier.json

A point is the mean over folds and seeds of one setting. Its reference is the best 12-bit model of the same network *at
any sampling rate*. Which rate that is, and which λ and rate are ours, is chosen in each fold on that fold's own
validation subjects (points with ``"selected": true``): no test subject has a say.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.accuracy import read, stored
from benchmarks.grid import ARCHIVES, FIT, Point, Run
from benchmarks.machine import RESULTS, commit
from models.tasks import TASKS

PARITY: Final = 0.005
"""Half a point of macro-F1: what parity with 12 bits may lose."""
BUDGET_BPS: Final = {"wisdm2019_watch": 60}
"""Payload bits a second of one channel that a choice may take, 40 where nothing is said."""
CHEAPEST: Final = "cheapest within half a point"
BOOTSTRAP: Final = 10_000
PACKET_S: Final = 2.0
KINDS: Final = ("payload", "all_in", "publish")
Row = dict[str, Any]
Key = tuple[int, int]
"""Fold and seed."""


@dataclass(frozen=True)
class Setting:
    """All runs of one setting on one data set.

    Args:
        point: what was varied.
        test: macro-F1 on test subjects by fold and seed.
        validation: the same on validation subjects.
        rates: row of :mod:`benchmarks.rates` by fold and seed; empty for 12 bits.
        commits: that made the runs.
    """

    point: Point
    test: Mapping[Key, float]
    validation: Mapping[Key, float]
    rates: Mapping[Key, Mapping[str, Any]]
    commits: tuple[str, ...]

    @property
    def is_reference(self) -> bool:
        """Whether these are 12-bit counts."""
        return self.point[2] == "none"

    def bits(self, kind: str, key: Key, packet_s: float = PACKET_S) -> float:
        """Bits a sample and channel: ``payload``, ``all_in`` or ``publish``; NaN where it was not measured."""
        row = self.rates.get(key)
        return float(row[f"packets_{packet_s:g}s"][kind]) if row else float("nan")


def settings_of(accuracy: list[Row], measured: list[Row]) -> dict[Point, Setting]:
    """The rows of :mod:`benchmarks.accuracy` and :mod:`benchmarks.rates` by setting; any-bit runs by what was sent."""
    rates = {_name(row): row for row in measured}
    groups: dict[Point, list[Row]] = {}
    for row in accuracy:
        rate, network, quantizer, bits, weight, loop = Run.from_row(row).point
        groups.setdefault((rate, network, quantizer, row.get("sent_bits", bits), weight, loop), []).append(row)
    return {
        point: Setting(
            point,
            {(r["fold"], r["seed"]): r["macro_f1"] for r in rows},
            {(r["fold"], r["seed"]): r["validation_macro_f1"] for r in rows},
            {(r["fold"], r["seed"]): rates[_name(r)] for r in rows if _name(r) in rates},
            tuple(sorted({r["commit"] for r in rows})),
        )
        for point, rows in groups.items()
    }


def over_folds(values: Mapping[Key, float]) -> tuple[float, float]:
    """Mean and standard deviation over folds, seeds averaged first."""
    folds = [np.mean([v for (f, _), v in values.items() if f == fold]) for fold in sorted({f for f, _ in values})]
    return float(np.mean(folds)), float(np.std(folds))


def _mean(of: Callable[[Key], float], keys: Iterable[Key]) -> float:
    values = {key: of(key) for key in keys}
    return over_folds(values)[0] if values else float("nan")


def paired(ours: Mapping[Key, float], theirs: Mapping[Key, float]) -> tuple[float, float, float]:
    """Mean difference where both have a run, and its 95 % bootstrap interval over folds; NaN where none is shared.

    Folds are what varies with people: seeds are averaged within a fold before folds are drawn.
    """
    shared = sorted(set(ours) & set(theirs))
    if not shared:
        return float("nan"), float("nan"), float("nan")
    folds = sorted({f for f, _ in shared})
    means = np.array([np.mean([ours[k] - theirs[k] for k in shared if k[0] == fold]) for fold in folds])
    draws = np.random.default_rng(0).choice(means, (BOOTSTRAP, len(means))).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(means.mean()), float(low), float(high)


def _of_fold(values: Mapping[Key, float], fold: int) -> float:
    return float(np.mean([v for (f, _), v in values.items() if f == fold]))


def best_reference(settings: Iterable[Setting], network: str) -> dict[int, Setting]:
    """By fold, the 12-bit setting of a network that its validation subjects prefer."""
    references = [s for s in settings if s.is_reference and s.point[1] == network]
    folds = sorted({f for s in references for f, _ in s.test})
    return {
        fold: max(
            (s for s in references if any(f == fold for f, _ in s.validation)),
            key=lambda s: _of_fold(s.validation, fold),
        )
        for fold in folds
    }


def cheapest(settings: Iterable[Setting], network: str) -> dict[int, Setting]:
    """By fold, the γ setting with the fewest bits a second whose score is within parity of 12 bits'.

    Bits and scores are those of the fold's validation subjects.
    """
    everything = list(settings)
    chosen = {}
    for fold, reference in best_reference(everything, network).items():
        floor = _of_fold(reference.validation, fold) - PARITY
        here = _measured_in(everything, network, fold)
        good = [s for s in here if _of_fold(s.validation, fold) >= floor]
        if good:
            chosen[fold] = min(good, key=lambda s: _validation_bps(s, fold))
        elif here:
            chosen[fold] = max(here, key=lambda s: _of_fold(s.validation, fold))
    return chosen


def best_within(settings: Iterable[Setting], network: str, budget_bps: float) -> dict[int, Setting]:
    """By fold, the γ setting with the best score of those that take at most ``budget_bps`` of payload a channel.

    Bits and scores are those of the fold's validation subjects.
    """
    everything = list(settings)
    chosen = {}
    for fold in best_reference(everything, network):
        here = [s for s in _measured_in(everything, network, fold) if _validation_bps(s, fold) <= budget_bps]
        if here:
            chosen[fold] = max(here, key=lambda s: _of_fold(s.validation, fold))
    return chosen


def _measured_in(settings: Iterable[Setting], network: str, fold: int) -> list[Setting]:
    ours = [s for s in settings if s.point[1:3] == (network, "gamma") and s.point[5] == "plain"]
    return [s for s in ours if any(f == fold for f, _ in s.rates)]


def _validation_bps(setting: Setting, fold: int) -> float:
    bits = [row["validation_payload"] for (f, _), row in setting.rates.items() if f == fold]
    return setting.point[0] * float(np.mean(bits))


def _bps(setting: Setting, fold: int, kind: str) -> float:
    return setting.point[0] * float(np.mean([setting.bits(kind, key) for key in setting.rates if key[0] == fold]))


def _merge(chosen: Mapping[int, Setting]) -> dict[Key, float]:
    return {key: value for fold, s in chosen.items() for key, value in s.test.items() if key[0] == fold}


def _name(row: Row) -> tuple[Run, int | None]:
    return Run.from_row(row), row.get("sent_bits")


def stored_settings(dataset: str, results: Path = RESULTS) -> dict[Point, Setting]:
    """:func:`settings_of` what is stored of a data set."""
    return settings_of(stored(dataset, results), read(results / f"rates-{dataset}.jsonl"))


def points(dataset: str, settings: Mapping[Point, Setting]) -> list[Row]:
    """Every point of a data set."""
    made = [_point(dataset, setting, settings) for setting in settings.values()]
    references = best_reference(settings.values(), "cnn")
    if not references:
        return made
    made.append(_selected(dataset, references, references, "best"))
    if all(setting.point[4] == 0 for setting in settings.values()):
        return made  # λ was not varied: there is nothing to choose from
    budget = BUDGET_BPS.get(dataset, 40)
    choices = {
        CHEAPEST: cheapest(settings.values(), "cnn"),
        f"best at {budget} b/s": best_within(settings.values(), "cnn", budget),
    }
    return made + [_selected(dataset, ours, references, rule) for rule, ours in choices.items() if ours]


def _point(dataset: str, setting: Setting, settings: Mapping[Point, Setting]) -> Row:
    rate, network, quantizer, bits, weight, loop = setting.point
    reference = _merge(best_reference(settings.values(), network))
    same_rate = settings.get((rate, network, "none", 12, 0.0, "plain"))
    if setting.is_reference:
        used = {kind: _plain(bits, dataset, rate, kind) for kind in KINDS}
    else:
        used = {kind: _mean(lambda key, kind=kind: setting.bits(kind, key), setting.rates) for kind in KINDS}
    entropy = {
        name: _mean(lambda key, name=name: setting.rates[key][name], setting.rates)
        for name in ("conditional_entropy", "code_length")
    }
    return {
        "dataset": dataset, "model": network, "quantizer": quantizer, "bits": bits, "lambda": weight, "loop": loop,
        "rate_hz": rate, **_bandwidth(used, rate), **_rounded(entropy), **_accuracy(setting.test, reference),
        "delta_same_rate": _interval(setting.test, same_rate.test if same_rate else {}),
        "validation_macro_f1": round(over_folds(setting.validation)[0], 4),
        "folds": len({f for f, _ in setting.test}), "seeds": len({s for _, s in setting.test}),
        "protocol": _protocol(dataset), "commit": ",".join(setting.commits), "selected": False,
    }  # fmt: skip


def _selected(dataset: str, chosen: Mapping[int, Setting], references: Mapping[int, Setting], rule: str) -> Row:
    """The point of a choice that is made anew in each fold."""
    test = _merge(chosen)
    quantizer = next(iter(chosen.values())).point[2]
    bits = max(s.point[3] for s in chosen.values())
    bps = {
        k: float(np.mean([
            s.point[0] * _plain(12, dataset, s.point[0], k) if s.is_reference else _bps(s, fold, k)
            for fold, s in chosen.items()
        ])) for k in KINDS
    }  # fmt: skip
    rate = float(np.mean([s.point[0] for s in chosen.values()]))
    return {
        "dataset": dataset, "model": "cnn", "quantizer": quantizer, "bits": bits, "lambda": None, "loop": "plain",
        "rate_hz": rate, **_bandwidth({k: v / rate for k, v in bps.items()}, rate),
        **_accuracy(test, _merge(references)),
        "choices": {
            str(f): {"rate_hz": s.point[0], "bits": s.point[3], "lambda": s.point[4]} for f, s in sorted(chosen.items())
        },
        "folds": len({f for f, _ in test}), "seeds": len({s for _, s in test}),
        "protocol": _protocol(dataset) + "; sampling rate and λ chosen in each fold on its validation subjects",
        "commit": commit(), "selected": True, "rule": rule,
    }  # fmt: skip


def _plain(bits: int, dataset: str, rate: float, kind: str) -> float:
    """Bits a sample of packed counts in packets of 2 s, as if one packet could hold them."""
    from benchmarks.rates import TOPIC
    from protocol.packet import HEADER_BYTES
    from protocol.wire_size import publish_size

    channels = 3 if TASKS[dataset].gyro_dps is None else 6
    values = channels * rate * PACKET_S
    payload = bits * values / 8
    size = {
        "payload": payload,
        "all_in": payload + HEADER_BYTES,
        "publish": publish_size(TOPIC, round(payload) + HEADER_BYTES, qos=0, version=5, alias=False),
    }[kind]
    return 8 * size / values


def _bandwidth(bits: Mapping[str, float], rate: float) -> dict[str, float | None]:
    per_sample = {f"bits_per_sample_{kind}": value for kind, value in bits.items()}
    per_second = {f"bps_per_channel_{kind}": value * rate for kind, value in bits.items()}
    return {"packet_s": PACKET_S, **_rounded(per_sample), **_rounded(per_second)}


def _accuracy(test: Mapping[Key, float], reference: Mapping[Key, float]) -> dict[str, float | None]:
    mean, spread = over_folds(test)
    delta, low, high = paired(test, reference)
    return _rounded(
        {
            "macro_f1": mean,
            "macro_f1_sd": spread,
            "macro_f1_12bit_best": over_folds(reference)[0] if reference else float("nan"),
            "delta_macro_f1": delta,
            "delta_low": low,
            "delta_high": high,
        }
    )


def _interval(ours: Mapping[Key, float], theirs: Mapping[Key, float]) -> list[float | None]:
    return list(_rounded(dict(zip("abc", paired(ours, theirs), strict=True))).values())


def _rounded(values: Mapping[str, float]) -> dict[str, float | None]:
    """For JSON, which has no NaN."""
    return {name: None if np.isnan(value) else round(value, 4) for name, value in values.items()}


def _protocol(dataset: str) -> str:
    task, fit = TASKS[dataset], FIT[dataset]
    return (
        f"5 folds by subject; windows of {task.window_s:g} s every {task.stride_s:g} s, majority label; "
        f"{fit.epochs} epochs; test subjects used for nothing else"
    )


def main() -> None:
    """Write the file."""
    made = [point for dataset in ARCHIVES for point in points(dataset, stored_settings(dataset))]
    lines = ",\n".join(json.dumps(point, ensure_ascii=False) for point in made)
    (RESULTS / "frontier.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
