"""Counts what is refused, by reason, and says it once per reason and device."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Final

from quantization.errors import FrameError, GammawearError, MessageError, PacketError

logger = logging.getLogger(__name__)

REASONS: Final = frozenset(
    {
        "length",  # too short or too long for what it is
        "checksum",
        "coder",
        "payload",  # not the bytes that so many samples take
        "codebook",
        "unknown_codebook",
        "rate",  # the device says that it samples at another rate than its codebook's
        "retained",  # packets and labels are of a moment; a retained one is of an earlier moment
        "device_limit",
        "topic",
        "json",
        "format",  # not the layout that this release reads
        "size",  # of a mosaic
        "field",  # of a frame's header
        "chunk",  # chunks that cannot make up their frame
        "contradiction",  # a chunk says something else of its frame than those before
        "frame_limit",  # a frame that is larger than all that may wait
        "label_range",
        "late",  # a packet whose place in the stream has been given up
        "unplaced",  # a packet that belongs to no stream, a frame whose number follows none
        "other",
    }
)
"""All values that the label ``reason`` of a refusal can have."""

MAX_SAID: Final = 10_000
"""Pairs of reason and device that are remembered as said: some 2 MB, whoever sends what."""


class RefusedPacketError(PacketError):
    """A packet that is sound but cannot be used here."""


class RefusedFrameError(FrameError):
    """A chunk that is sound but cannot be used here."""


class RefusedMessageError(MessageError):
    """A message that is sound but cannot be used here."""


class Refusals:
    """Counters by kind and reason; what is said is bounded, what is counted is exact.

    >>> refusals = Refusals()
    >>> refusals.refuse("imu", "w1", PacketError("checksum", "demo"))
    >>> refusals.packets["checksum"], refusals.packets.total()
    (1, 1)
    """

    def __init__(self) -> None:
        self.packets: Counter[str] = Counter()
        self.frames: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()
        self._said: set[tuple[str, str]] = set()

    def refuse(self, kind: str, device: str, error: GammawearError) -> None:
        """Count an error of a topic's last level ``kind``; log it unless this reason was said of this device."""
        reason = str(getattr(error, "reason", "other"))
        reason = reason if reason in REASONS else "other"
        {"imu": self.packets, "frame": self.frames}.get(kind, self.messages)[reason] += 1
        if (reason, device) in self._said or len(self._said) >= MAX_SAID:
            return
        self._said.add((reason, device))
        logger.warning(
            "%s: refused on %s: %.300s (said once per reason and device)",
            device,
            kind,
            error,
            extra={"device": device, "kind": kind, "reason": reason},
        )
        if len(self._said) == MAX_SAID:
            logger.warning("%d refusals were logged; further ones are counted only", MAX_SAID)

    def forget(self, device: str) -> None:
        """Say it again should this device come back."""
        self._said -= {(reason, device) for reason in REASONS}
