"""What a test cannot do without: skipped on a machine that lacks it, a failure in continuous integration."""

import os

import pytest


def need(present: object, what: str) -> None:
    """Go on if ``present``; else fail where ``CI`` is set and skip elsewhere, saying ``what`` is missing."""
    if present:
        return
    if os.environ.get("CI"):
        pytest.fail(f"needs {what}")
    pytest.skip(f"needs {what}")
