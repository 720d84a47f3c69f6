"""The demonstration on recorded people, in real time, beside the offline figure for the same people.

    python -m benchmarks.live --data ../shared/data/har/sp_sw_har.zip

Runs ``gammawear demo --once`` and writes ``benchmarks/results/live.json``. Takes as long as the recordings: 2 minutes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.machine import RESULTS, commit, machine


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    code = "from gammawear.cli import main; main()"
    command = [sys.executable, "-c", code, "demo", "--dataset", str(arguments.data), "--once", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)  # noqa: S603 - our own command
    result = json.loads(done.stdout.decode().splitlines()[-1])
    out = {**result, "commit": commit(), "machine": machine()}
    (RESULTS / "live.json").write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
