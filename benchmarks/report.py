"""Puts the stored results into the documents: every table there stands between two marks and comes from here.

python -m benchmarks.report            # rewrite README.md and docs/results.md
python -m benchmarks.report --check    # fail if they do not say what the results say
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import detection_tables, tables
from benchmarks.accuracy import read
from benchmarks.frontier import stored_settings
from benchmarks.grid import base_rate
from benchmarks.machine import RESULTS, ROOT
from models.tasks import TASKS

DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "results.md")
_MARKED = re.compile(r"(<!-- table: ([a-z0-9_-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _load(name: str) -> Any:  # noqa: ANN401 - JSON
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def bundles() -> str:
    """The bundles that ship, on their test subjects."""
    rows = [
        [
            f"`{one['bundle']}`",
            f"{one['dataset']}, {len(one['subjects'])} held-out subjects, {one['windows']} windows",
            f"{one['macro_f1']:.3f}",
            f"{one['macro_f1_pure']:.3f}",
            f"{one['accuracy']:.3f}",
            f"{one['unknown_share']:.1%}",
            f"{one['forest_macro_f1']:.3f}" if "forest_macro_f1" in one else "–",
            f"{one['payload_bits_per_sample']:.2f}",
            " / ".join(f"{one['rate_hz'] * one[f'{kind}_bits_per_sample']:.0f}" for kind in ("payload", "all_in")),
        ]
        for one in _load("bundles.json")["bundles"]
    ]
    header = [
        "bundle", "scored on", "macro-F1", "on pure windows", "accuracy", "answered `unknown`", "a forest's macro-F1",
        "bits a sample",
        "b/s a channel, payload / packet",
    ]  # fmt: skip
    return tables.rows(header, rows)


def per_subject() -> str:
    """Macro-F1 of each held-out subject."""
    rows = [
        [f"`{one['bundle']}`", ", ".join(f"{s} {f1:.3f}" for s, f1 in one["per_subject_macro_f1"].items())]
        for one in _load("bundles.json")["bundles"]
    ]
    return tables.rows(["bundle", "macro-F1 by subject"], rows)


def robustness() -> str:
    """The same windows, changed before the ADC."""
    found = _load("bundles.json")["bundles"]
    names = list(found[0]["changed"])
    rows = [
        [
            f"`{one['bundle']}`",
            f"{one['macro_f1']:.3f}",
            *(f"{one['changed'][name]['macro_f1']:.3f}" for name in names),
        ]
        for one in found
    ]
    return tables.rows(["macro-F1", "as recorded", *names], rows)


def unknown() -> str:
    """How often activities that a bundle does not know are answered ``unknown``."""
    rows = []
    for one in _load("bundles.json")["bundles"]:
        for activity, found in one["unknown_found"].items():
            seen = "never" if activity in one["never_seen"] else "as an example of what it does not know"
            rows.append([f"`{one['bundle']}`", activity, seen, f"{found['share']:.0%}", str(found["windows"])])
    return tables.rows(["bundle", "activity", "seen in training", "answered `unknown`", "windows"], rows)


def live() -> str:
    """A demonstration on recorded people, beside the offline figure."""
    one = _load("live.json")
    rows = [
        [
            f"`{one['bundle']}`",
            ", ".join(one["subjects"]),
            f"{one['macro_f1']:.3f}",
            f"{one['offline_macro_f1']:.3f}",
            str(one["scored_windows"]),
            f"{one['packets_sent']} / {one['packets_received']} / {one['packets_lost']}",
            f"{one['bits_per_sample']:.2f}",
            f"{one['compression_over_12_bit_mqtt']:.2f}×",
            f"{one['latency_ms']['p50']:.0f} / {one['latency_ms']['p99']:.0f} ms",
        ]
    ]
    header = [
        "bundle", "people", "live macro-F1", "offline", "windows", "packets sent / received / lost",
        "bits a value with our header", "MQTT bytes below 12-bit", "latency median / p99",
    ]  # fmt: skip
    return tables.rows(header, rows)


def smoothing() -> str:
    """Causal smoothing of the bundles' answers."""
    rows = [
        [
            f"`{one['bundle']}`",
            one["smoothing"],
            f"{one['macro_f1']:.3f}",
            "–" if one["delay_s"] is None else f"{one['delay_s']:.2f} s",
            f"{one['followed']} of {one['changes']}" if one["changes"] else "there are none",
        ]
        for one in _load("smoothing.json")["rows"]
    ]
    return tables.rows(["bundle", "smoothing", "macro-F1", "later by", "changes of activity followed"], rows)


def wearers() -> str:
    """Generated wearers, scored both ways."""
    latest = {row["wearer"]: row for row in read(RESULTS / "wearers.jsonl")}
    rows = [
        [
            str(name),
            f"`{row['bundle']}`",
            f"{row['train_real_test_generated']:.3f}",
            f"{row['train_real_test_real']:.3f}",
            f"{row['train_generated_test_real']:.3f}",
            str(len(row["activities"])),  # type: ignore[arg-type]
        ]
        for name, row in latest.items()
    ]
    header = [
        "wearer",
        "bundle",
        "bundle on generated",
        "bundle on recorded",
        "trained on generated, on recorded",
        "activities",
    ]
    return tables.rows(header, rows)


def speed() -> str:
    """What one core does."""
    one = _load("speed.json")
    rows = [[row["what"], row["figure"], row["how"]] for row in one["rows"]]
    return tables.rows(["what", "figure", "how"], rows)


def bluetooth() -> str:
    """Wearables at one bridge."""
    lines = [
        [
            str(row["wearables"]),
            f"{row['notifications_per_s']:g}",
            f"{row['added_latency_ms_p50']:g} / {row['added_latency_ms_p99']:g} ms",
            f"{row['core_share']:.1%}",
            str(row["links_lost"]),
        ]
        for row in _load("bluetooth.json")["rows"]
    ]
    header = ["wearables", "notifications a second", "added latency median / p99", "processor, of a core", "links lost"]
    return tables.rows(header, lines)


def detection(file: str = "detection.jsonl") -> list[dict[str, Any]]:
    """Rows of ``benchmarks.detection``."""
    return read(RESULTS / file)


def _long_detection(epochs: int) -> list[dict[str, Any]]:
    return [row for row in detection("detection_long.jsonl") if row["epochs"] == epochs]


def bandwidth() -> str:
    """The headline: what a second of one channel takes, at equal recognition."""
    return tables.headline(_load("frontier.json"), _load("lossless.json"), "sp_sw_har")


TABLES: dict[str, Callable[[], str]] = {
    "parity": tables.parity,
    "parity-short": tables.parity_short,
    "selected": lambda: tables.selected(_load("frontier.json")),
    "bandwidth": bandwidth,
    **{
        f"core-{dataset}": lambda dataset=dataset: tables.quantizers(stored_settings(dataset), TASKS[dataset].rate_hz)
        for dataset in ("sp_sw_har", "wisdm2019_watch")
    },
    **{
        f"frontier-{dataset}": lambda dataset=dataset: tables.frontier(stored_settings(dataset))
        for dataset in ("sp_sw_har", "wisdm2019_watch", "sp_sw_har_phone", "casale_chest", "weda_fall")
    },
    "quantizers": lambda: tables.quantizers(stored_settings("sp_sw_har"), base_rate("sp_sw_har")),
    "networks": lambda: tables.networks(stored_settings("sp_sw_har"), base_rate("sp_sw_har")),
    "loops": lambda: tables.loops(stored_settings("sp_sw_har"), base_rate("sp_sw_har")),
    "forest": tables.forests,
    "coder": tables.coder,
    **{
        f"lossless-{dataset}": lambda dataset=dataset, rate=rate: tables.lossless(_load("lossless.json"), dataset, rate)
        for dataset, rate in (("sp_sw_har", 50.0), ("wisdm2019_watch", 20.0))
    },
    "lossless": lambda: tables.lossless_everywhere(_load("lossless.json")),
    "bluetooth": bluetooth,
    "bundles": bundles,
    "per-subject": per_subject,
    "robustness": robustness,
    "unknown": unknown,
    "live": live,
    "smoothing": smoothing,
    "wearers": wearers,
    "speed": speed,
    "detection-penn_fudan": lambda: detection_tables.scores(detection(), "penn_fudan"),
    "detection-campus": lambda: detection_tables.scores(detection(), "penn_fudan_campus"),
    "detection-bccd": lambda: detection_tables.scores(detection(), "bccd"),
    "detection-differences": lambda: detection_tables.differences(detection()),
    "detection-classes-bccd": lambda: detection_tables.by_class(detection(), "bccd"),
    "detection-120-epochs": lambda: detection_tables.scores(_long_detection(120), "penn_fudan"),
    "detection-120-differences": lambda: detection_tables.differences(_long_detection(120)),
    "detection-120-bytes": lambda: detection_tables.sizes(_long_detection(120)),
    "detection-240-epochs": lambda: detection_tables.scores(_long_detection(240), "penn_fudan"),
    "detection-240-differences": lambda: detection_tables.differences(_long_detection(240)),
    "detection-240-bytes": lambda: detection_tables.sizes(_long_detection(240)),
    "detection-bytes": lambda: detection_tables.sizes(detection()),
    "frame-coders": lambda: detection_tables.frame_coders(_load("frame_bytes.json")),
    "frame-jpegs": lambda: detection_tables.frame_jpegs(_load("frame_bytes.json")),
}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    stale = []
    for document in DOCUMENTS:
        old = document.read_text(encoding="utf-8")
        new = _MARKED.sub(lambda match: f"{match[1]}{TABLES[match[2]]()}\n{match[3]}", old)
        if new != old:
            stale.append(document.name)
            if not arguments.check:
                document.write_text(new, encoding="utf-8")
    if stale and arguments.check:
        sys.exit(f"{', '.join(stale)}: tables differ from benchmarks/results; run python -m benchmarks.report")


if __name__ == "__main__":
    main()
