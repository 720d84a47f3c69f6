"""Windows of one device's stream: always of one codebook, never across a gap or a restart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from gateway.clock import DeviceClock
from gateway.reassembly import Joint, Piece
from models.bundle import Bundle
from protocol.packet import TICK_MODULUS
from quantization.imu import Codes, Floats

Flush = Literal["gap", "restart", "codebook", "removed"]
"""Why samples that had not made a whole window were given up: packets are missing, the device restarted, it changed its
codebook, or its bundle is no longer served."""

_NO_TICKS: Final[Floats] = np.empty(0)


@dataclass(slots=True)
class Window:
    """One window, ready for its network.

    Args:
        device: whose.
        epoch: which of the device's lives: ticks of different epochs do not compare.
        bundle: the network to ask.
        codes: ``[T, C]``.
        ticks: ``[T]`` unwrapped ms of each sample.
        period_ms: between samples.
        from_ms: UTC of the first sample, by the device's clock as known when the window was cut.
        to_ms: UTC of the newest sample.
        received_ns: UTC at which the packet with the newest sample arrived.
    """

    device: str
    epoch: int
    bundle: Bundle
    codes: Codes
    ticks: Floats
    period_ms: float
    from_ms: float
    to_ms: float
    received_ns: int

    @property
    def from_tick(self) -> int:
        """Of the first sample, as the device counts: u32, wraps."""
        return round(float(self.ticks[0])) % TICK_MODULUS


class WindowBuffer:
    """The samples of one device that do not make a window yet.

    Its memory is bounded by one window (at most 4096 samples) and one packet (at most 1024).

    Args:
        device: for the windows.
        flushed: called with the reason whenever samples are given up.
    """

    __slots__ = ("_codes", "_device", "_flushed", "_ticks", "bundle", "epoch")

    def __init__(self, device: str, flushed: Callable[[Flush], None]) -> None:
        self._device = device
        self._flushed = flushed
        self.bundle: Bundle | None = None
        self._codes: Codes = np.empty((0, 0), dtype=np.uint8)
        self._ticks: Floats = _NO_TICKS
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._ticks)

    def add(self, piece: Piece, clock: DeviceClock) -> list[Window]:
        """Append a packet that has its place; returns the windows that it completes, oldest first."""
        bundle, previous = piece.bundle, self.bundle
        if piece.joint is Joint.START:
            self.flush("restart")
            self.epoch += 1
        elif piece.joint is Joint.GAP:
            self.flush("gap")
        if previous is not bundle:
            # A new version of the same codebook's network takes the samples over; only codes must not be mixed.
            if previous is not None and previous.codebook != bundle.codebook:
                self.flush("codebook")
            self.bundle = bundle
        ticks: Floats = piece.tick + piece.period_ms * np.arange(len(piece.codes), dtype=np.float64)
        if len(self._ticks):
            self._codes = np.concatenate((self._codes, piece.codes))
            self._ticks = np.concatenate((self._ticks, ticks))
        else:
            self._codes, self._ticks = piece.codes, ticks
        return self._cut(piece, clock)

    def flush(self, reason: Flush) -> None:
        """Give up what is there."""
        if len(self._ticks):
            self._codes, self._ticks = self._codes[:0], _NO_TICKS
            self._flushed(reason)

    def _cut(self, piece: Piece, clock: DeviceClock) -> list[Window]:
        manifest = piece.bundle.manifest
        length, stride = manifest.window, manifest.stride
        windows: list[Window] = []
        at = 0
        while at + length <= len(self._ticks):
            ticks = self._ticks[at : at + length]
            windows.append(
                Window(
                    device=self._device,
                    epoch=self.epoch,
                    bundle=piece.bundle,
                    codes=self._codes[at : at + length],
                    ticks=ticks,
                    period_ms=piece.period_ms,
                    from_ms=clock.to_wall_ms(float(ticks[0])),
                    to_ms=clock.to_wall_ms(float(ticks[-1])),
                    received_ns=piece.received_ns,
                )
            )
            at += stride
        if at:
            # A view of the rest: its base, one window and one packet, goes when the next packet is appended.
            self._codes, self._ticks = self._codes[at:], self._ticks[at:]
        return windows
