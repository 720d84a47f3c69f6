"""The signal of a device that somebody watches: what its codes stand for, and its raw samples while it sends them.

Nothing is decoded and nothing is kept of a device that nobody watches.
"""

from __future__ import annotations

import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gateway.clock import DeviceClock
from gateway.live.rows import to_json
from gateway.live.streams import Feed, Whole, event
from gateway.pipeline import Pipeline
from gateway.reassembly import Joint, Piece
from models.bundle import Bundle
from protocol.messages import Activity, RawTrace
from protocol.packet import TICK_MODULUS
from quantization.codebook import Codebook
from quantization.imu import Codes, Floats, unit_of

KEPT_S: Final = 20.0
FIRST_S: Final = 10.0
"""What a viewer gets of the past."""
RAW_WAITING: Final = 8
"""Raw samples come before their packet; of so many packets they are kept until it comes."""
RAW_LATE_S: Final = 5.0
"""A device that was asked for so many seconds may take so much longer."""
_DECIMALS: Final = 4


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Evenly spaced samples: ``[n, C]`` codes, None where they never came; ``[n, C]`` raw ones in physical units."""

    samples: int
    codes: Codes | None
    raw: Floats | None


class Signal:
    """One device's.

    Args:
        device: its id.
        truth_of: what its wearer truly did, as far as it is known.
        raw_until: seconds of the monotonic clock until which raw samples are taken.
    """

    def __init__(self, device: str, truth_of: Callable[[str], str | None], raw_until: Callable[[str], float]) -> None:
        self.device = device
        self._truth_of = truth_of
        self._raw_until = raw_until
        self._bundle: Bundle | None = None
        self._period_ms = 1.0
        self._next_tick = 0.0
        self._newest_ms = 0.0
        self._stretches: deque[_Stretch] = deque()
        self._kept = 0
        self._unsent = 0
        self._news = False
        self._raw: OrderedDict[int, RawTrace] = OrderedDict()
        self._answer: Activity | None = None
        self._probabilities: dict[str, float] | None = None
        self._raw_runs = False
        self.feed = Feed(self._whole)

    # -- from the pipeline --------------------------------------------------------------------------------------------

    def placed(self, piece: Piece, clock: DeviceClock) -> None:
        """Keep a packet's samples."""
        begins = self._bundle is not piece.bundle or piece.joint is Joint.START or self._period_ms != piece.period_ms
        if begins:
            self._begin(piece)
        most = round(KEPT_S * 1000 / self._period_ms)
        if piece.joint is Joint.GAP and not begins:
            missing = min(most, round((piece.tick - self._next_tick) / self._period_ms))
            if missing > 0:
                self._keep(_Stretch(missing, None, None))
        samples = len(piece.codes)
        self._keep(_Stretch(samples, piece.codes, self._raw_of(piece)))
        while self._kept - self._stretches[0].samples >= most:
            self._kept -= self._stretches.popleft().samples
        self._next_tick = piece.tick + piece.duration_ms
        self._newest_ms = clock.to_wall_ms(self._next_tick - self._period_ms)

    def answered(self, answer: Activity, labels: tuple[str, ...], probabilities: NDArray[np.float32]) -> None:
        """Keep what the network said last."""
        self._answer = answer
        shares = (round(float(probability), _DECIMALS) for probability in probabilities)
        self._probabilities = dict(zip(labels, shares, strict=True))
        self._news = True

    def raw(self, payload: bytes) -> None:
        """Take raw samples, if somebody asked for them.

        Raises:
            MessageError: they are not what they should be.
        """
        if time.monotonic() > self._raw_until(self.device):
            return
        trace = RawTrace.parse(payload)
        self._raw[trace.tick] = trace
        while len(self._raw) > RAW_WAITING:
            self._raw.popitem(last=False)

    def _begin(self, piece: Piece) -> None:
        self._bundle, self._period_ms = piece.bundle, piece.period_ms
        self._stretches.clear()
        self._kept = self._unsent = 0
        self.feed.restart()

    def _keep(self, stretch: _Stretch) -> None:
        self._stretches.append(stretch)
        self._kept += stretch.samples
        self._unsent += stretch.samples
        self._news = True

    def _raw_of(self, piece: Piece) -> Floats | None:
        trace = self._raw.pop(round(piece.tick) % TICK_MODULUS, None)
        if trace is None:
            return None
        physical = trace.to_physical()
        return physical if physical.shape == piece.codes.shape else None

    # -- to viewers ---------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Tell viewers what is new."""
        runs = time.monotonic() < self._raw_until(self.device)
        if self._bundle is None or not (self._news or runs != self._raw_runs):
            return
        self._raw_runs = runs
        self._news = False
        # What is older than the ring has gone to nobody, as nobody can have been watching.
        new, self._unsent = min(self._unsent, self._kept), 0
        self.feed.publish(event("device", to_json(self._event(self._bundle, new))))

    async def _whole(self) -> Whole | None:
        if self._bundle is None:
            return None
        self.tick()
        first = self._event(self._bundle, min(self._kept, round(FIRST_S * 1000 / self._period_ms)))
        return Whole(self.feed.version, event("device", to_json(first | {"curve": _curve(self._bundle.codebook)})))

    def _event(self, bundle: Bundle, samples: int) -> dict[str, Any]:
        codebook = bundle.codebook
        levels, raw = self._newest(codebook, samples)
        return {
            "device": self.device,
            "channels": codebook.channels,
            "units": [unit_of(channel) for channel in codebook.channels],
            "rate_hz": 1000 / self._period_ms,
            "bits": codebook.bits,
            "from_ms": round(self._newest_ms - (samples - 1) * self._period_ms, 1),
            "new": levels,
            "activity": self._answer.activity if self._answer is not None else None,
            "truth": self._truth_of(self.device),
            "probabilities": self._probabilities,
            "raw": {"until_ms": round(self._newest_ms, 1), "new": raw} if self._raw_runs else None,
        }

    def _newest(self, codebook: Codebook, samples: int) -> tuple[list[Any], list[Any]]:
        """The newest samples, levels and raw: a row of nulls where there is none."""
        none = [None] * len(codebook.channels)
        channels = np.arange(len(codebook.channels))
        levels: list[Any] = []
        raw: list[Any] = []
        left = samples
        for stretch in reversed(self._stretches):
            if left <= 0:
                break
            taken = min(left, stretch.samples)
            left -= taken
            codes, counts = stretch.codes, stretch.raw
            levels[:0] = [none] * taken if codes is None else _rounded(codebook.levels[channels, codes[-taken:]])
            raw[:0] = [none] * taken if counts is None else _rounded(counts[-taken:])
        return levels, raw


def _rounded(values: Floats) -> list[Any]:
    rows: list[Any] = np.round(values, _DECIMALS).tolist()
    return rows


def _curve(codebook: Codebook) -> dict[str, Any]:
    return {
        channel: {
            "thresholds": np.round(codebook.thresholds[number], 6).tolist(),
            "levels": np.round(codebook.levels[number], 6).tolist(),
        }
        for number, channel in enumerate(codebook.channels)
    }


class Signals:
    """Those of all devices that somebody watches, at most one for each viewer.

    Args:
        pipeline: told whom to follow.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._watched: dict[str, tuple[Signal, int]] = {}
        self._raw_until: dict[str, float] = {}

    @contextlib.contextmanager
    def watching(self, device: str) -> Iterator[Feed]:
        """Somebody watches a device, known or not."""
        signal, watchers = self._watched.get(device) or (Signal(device, self._truth_of, self._raw_ends), 0)
        self._watched[device] = signal, watchers + 1
        self._pipeline.watchers[device] = signal
        try:
            yield signal.feed
        finally:
            signal, watchers = self._watched[device]
            self._watched[device] = signal, watchers - 1
            if watchers == 1:
                del self._watched[device], self._pipeline.watchers[device]

    def expect_raw(self, device: str, seconds: float) -> None:
        """Somebody asked this device for raw samples."""
        now = time.monotonic()
        self._raw_until = {name: until for name, until in self._raw_until.items() if until > now}
        self._raw_until[device] = now + seconds + RAW_LATE_S

    def tick(self) -> None:
        """To be called a few times a second."""
        for signal, _ in self._watched.values():
            signal.tick()

    def _raw_ends(self, device: str) -> float:
        return self._raw_until.get(device, 0.0)

    def _truth_of(self, device: str) -> str | None:
        known = self._pipeline.devices.get(device)
        return known.truth if known is not None else None
