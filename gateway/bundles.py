"""The bundles that a gateway serves, found by the digest in a packet or a frame."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from models.bundle import SHIPPED, Bundle, load_bundle
from models.bundle_files import (
    ACTIVITY,
    CODEBOOK_FILE,
    DETECTOR,
    MANIFEST_FILE,
    MODEL_FILE,
    Format,
    bundle_folders,
    said_format,
)
from models.vision.bundle import SHIPPED as SHIPPED_DETECTORS
from models.vision.bundle import DetectorBundle, load_detector
from quantization.entropy import coder_of
from quantization.errors import BundleError

logger = logging.getLogger(__name__)

_Signature = tuple[tuple[int, int], ...]
B = TypeVar("B", Bundle, DetectorBundle)


@dataclass(frozen=True)
class _Known(Generic[B]):
    signature: _Signature
    bundle: B | None
    damaged: bool
    """Then ``bundle`` is the one that was loaded before, if any."""


class Shelf(ABC, Generic[B]):
    """All bundles of one kind in some directories.

    Of several that share a codebook the one in the first folder serves, of those with one name the highest version.

    A bundle that is loaded stays as it is until its files change, so that :meth:`reload` disturbs no stream. One whose
    files have become unreadable goes on as it was loaded, until its folder is gone.

    Attributes:
        damaged: folders that could not be loaded at the last look.
        failures: loads that failed, ever.
    """

    kind: ClassVar[Format]

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = tuple(folders)
        self.damaged = 0
        self.failures = 0
        self._known: dict[Path, _Known[B]] = {}
        self._serving: dict[bytes, dict[bytes, B]] = {}
        self.reload()

    @abstractmethod
    def load(self, folder: Path) -> B:
        """Load one bundle, ready for its first packet. :class:`BundleError` if it is damaged."""

    def __len__(self) -> int:
        return len(self.serving)

    @property
    def serving(self) -> list[B]:
        """One bundle per codebook, by reference."""
        bundles = [bundle for shared in self._serving.values() for bundle in shared.values()]
        return sorted(bundles, key=lambda bundle: bundle.reference)

    def find(self, short_digest: bytes, digest: bytes | None = None) -> B | None:
        """The bundle for a packet's digest.

        Args:
            short_digest: the first four bytes, as in a packet.
            digest: all 32, if the device has said so. It decides between two that begin alike, and one that
                begins alike but goes on differently is not taken for ours.
        """
        alike = self._serving.get(short_digest)
        if alike is None:
            return None
        if digest is not None and digest.startswith(short_digest):
            return alike.get(digest)
        return next(iter(alike.values())) if len(alike) == 1 else None

    def reload(self) -> bool:
        """Look for bundles that came, went or changed; returns whether any did. Reads files: may take a second."""
        known: dict[Path, _Known[B]] = {}
        for root in self.folders:
            for folder in self._folders_in(root):
                known[folder] = self._look(folder, self._known.get(folder))
        changed = {f: k.signature for f, k in known.items()} != {f: k.signature for f, k in self._known.items()}
        if changed:
            self._known = known
            self._serving = _by_digest(entry.bundle for entry in known.values())
            self.damaged = sum(entry.damaged for entry in known.values())
            self._say_what_does_not_serve()
        return changed

    def _say_what_does_not_serve(self) -> None:
        for bundle in (entry.bundle for entry in self._known.values()):
            if bundle is None:
                continue
            serving = self._serving[bundle.codebook.short_digest][bundle.codebook.digest]
            if serving is not bundle:
                logger.info("%s does not serve: %s has the same codebook", bundle.reference, serving.reference)

    def _folders_in(self, root: Path) -> list[Path]:
        try:
            found: list[Path] = bundle_folders(root, self.kind)
            # Whose manifest has become unreadable says of no kind any more that it is.
            mine = (folder for folder in self._known if folder.parent == root)
            torn: list[Path] = [
                folder for folder in mine if (folder / MANIFEST_FILE).exists() and not said_format(folder)
            ]
            return sorted({*found, *torn})
        except OSError as error:
            logger.warning("%s cannot be listed, its bundles stay as they are: %s", root, error.strerror)
            return [folder for folder in self._known if folder.parent == root]

    def _look(self, folder: Path, before: _Known[B] | None) -> _Known[B]:
        signature = _signature(folder)
        if before is not None and before.signature == signature:
            return before
        try:
            bundle = self.load(folder)
        except BundleError as error:
            self.failures += 1
            logger.error("bundle not loaded: %s", error)
            return _Known(signature, before.bundle if before is not None else None, damaged=True)
        logger.info("serving %s, codebook %s", bundle.reference, bundle.codebook.short_digest.hex())
        return _Known(signature, bundle, damaged=False)


class BundleStore(Shelf[Bundle]):
    """The bundles of activities."""

    kind = ACTIVITY

    def __init__(self, folders: Iterable[Path] = (SHIPPED,)) -> None:
        super().__init__(folders)

    def load(self, folder: Path) -> Bundle:
        """See :class:`Shelf`."""
        bundle = load_bundle(folder)
        coder_of(bundle.codebook)  # may compile for seconds: now, not at the first packet
        return bundle


class DetectorStore(Shelf[DetectorBundle]):
    """The detectors."""

    kind = DETECTOR

    def __init__(self, folders: Iterable[Path] = (SHIPPED_DETECTORS,)) -> None:
        super().__init__(folders)

    def load(self, folder: Path) -> DetectorBundle:
        """See :class:`Shelf`."""
        from quantization import plane_coder  # noqa: F401 - may compile for seconds: now, not at the first frame

        return load_detector(folder)


def _by_digest(bundles: Iterable[B | None]) -> dict[bytes, dict[bytes, B]]:
    serving: dict[bytes, dict[bytes, B]] = {}
    for bundle in bundles:
        if bundle is None:
            continue
        shared = serving.setdefault(bundle.codebook.short_digest, {})
        other = shared.get(bundle.codebook.digest)
        if other is None or _replaces(bundle, other):
            shared[bundle.codebook.digest] = bundle
    return serving


def _replaces(bundle: B, other: B) -> bool:
    """Whether a bundle serves in place of another that was found before it and has the same codebook."""
    new, old = bundle.manifest, other.manifest
    return new.name == old.name and new.version > old.version


def _signature(folder: Path) -> _Signature:
    entries = []
    for name in (MANIFEST_FILE, CODEBOOK_FILE, MODEL_FILE):
        try:
            stat = (folder / name).stat()
            entries.append((stat.st_mtime_ns, stat.st_size))
        except OSError:
            entries.append((0, -1))
    return tuple(entries)
