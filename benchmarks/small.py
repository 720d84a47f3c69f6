"""A small version of the accuracy table, in a few minutes: one data set, one sampling rate, one seed.

    python -m benchmarks.small --data ../shared/data/har

Runs go to ``runs/bench/``, not to the stored results. The full grid: ``python -m benchmarks.accuracy --help``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from benchmarks.accuracy import run_missing
from benchmarks.frontier import stored_settings
from benchmarks.grid import ARCHIVES, base_rate, runs
from benchmarks.machine import ROOT
from benchmarks.rates import measure_missing
from benchmarks.tables import frontier, quantizers

DATASET: Final = "sp_sw_har"
OUT: Final = ROOT / "runs" / "bench"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/har"), help="folder of the archives")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one core each")
    arguments = parser.parse_args()
    archive = arguments.data / ARCHIVES[DATASET]
    if not archive.exists():
        sys.exit(f"{archive} is absent; get it with: gammawear datasets fetch {DATASET} --folder {arguments.data}")
    OUT.mkdir(parents=True, exist_ok=True)
    run_missing(list(runs("small", DATASET, seeds=range(1))), arguments.data, arguments.jobs, OUT)
    measure_missing(DATASET, arguments.data, OUT)
    settings = stored_settings(DATASET, OUT)
    rate = base_rate(DATASET)
    sys.stdout.write(f"{DATASET}, {rate:g} Hz, 5 folds by subject, one seed\n\n{quantizers(settings, rate)}\n\n")
    sys.stdout.write(f"with a weight λ on the rate\n\n{frontier(settings)}\n")


if __name__ == "__main__":
    main()
