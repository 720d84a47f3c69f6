"""The documents say what the stored results say."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_every_table_is_made_from_the_stored_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import report

    monkeypatch.setattr(sys, "argv", ["report", "--check"])
    report.main()
