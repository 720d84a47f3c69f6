"""What a shell offers for a value that it completes. Every key press asks, so nothing heavy is imported."""

from __future__ import annotations

from pathlib import Path

import models

_SHIPPED = Path(models.__file__).parent
_OWN = Path("runs")


def bundle_names(incomplete: str) -> list[str]:
    """Bundles of activities that ship, and what is in ``runs``: names alone, then with versions."""
    return _names((_SHIPPED / "bundles", _OWN), incomplete)


def detector_names(incomplete: str) -> list[str]:
    """The same of detectors."""
    return _names((_SHIPPED / "vision" / "bundles", _OWN), incomplete)


def any_bundle_names(incomplete: str) -> list[str]:
    """Both."""
    return _names((_SHIPPED / "bundles", _SHIPPED / "vision" / "bundles", _OWN), incomplete)


def part_names(incomplete: str) -> list[str]:
    """Parts that can be emulated."""
    from quantization.sensor import PARTS

    return [name for name in sorted(PARTS) if name.startswith(incomplete)]


def dataset_names(incomplete: str) -> list[str]:
    """Data sets that are known."""
    from models.datasets import DATASETS

    return [name for name in sorted(DATASETS) if name.startswith(incomplete)]


def _names(folders: tuple[Path, ...], incomplete: str) -> list[str]:
    references = {manifest.parent.name for folder in folders for manifest in folder.glob("[!.]*@*/manifest.json")}
    bare = {reference.partition("@")[0] for reference in references}
    return [name for name in (*sorted(bare), *sorted(references)) if name.startswith(incomplete)]
