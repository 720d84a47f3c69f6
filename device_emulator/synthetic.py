"""Generated wearers: no recording is needed for a demo, and none is replayed.

A *wearer* is a file of parameters (:mod:`device_emulator.wearer`) that were fitted to a published data set
by ``benchmarks/fit_wearers.py``. It has several *personas*, one for each person it was fitted to, and a schedule of
*bouts*: sitting, rising, walking. For each bout a persona's trajectory is drawn anew:

- trend: per channel a cosine series over the bout, so that a slow riser makes the same movement more slowly;
- gait, where the bout is periodic: harmonics of a frequency that is drawn too, wanders, and swells and fades over the
  bout;
- the coefficients of both are the persona's mean plus a low-rank normal deviation, which is what makes two bouts
  differ in the way in which two bouts of one person do;
- noise: what is left, by its power in a few frequency bands, its correlation between channels and its burstiness.

A bout is drawn a little longer than it lasts and is faded into its neighbours. Time is in seconds and frequencies in
Hz throughout, so the same wearer can be sampled at any rate.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from device_emulator.source import Block, Labels
from device_emulator.wearer import Bout, Kind, Wearer, lead_samples, load_wearer, wearers
from protocol.messages import SourceKind
from quantization.errors import DatasetError, SensorError
from quantization.imu import Counts, Floats
from quantization.sensor import Sensor

__all__ = ["SyntheticSource", "wearers"]

MIN_RATE_HZ: Final = 5.0
"""Below, a bout of half a second has hardly a sample."""
MAX_RATE_HZ: Final = 1000.0

STRAP_DEG: Final = 6.0
"""How far a watch sits turned from where the persona wore it: normal, one standard deviation, about a random axis.
Within the play that training allows for (10°)."""
ACC_BIAS_G: Final = 0.015
GYRO_BIAS_DPS: Final = 0.4
"""Zero offsets after factory trim: normal, one standard deviation. Half of the ± 20-50 mg and ± 0.5-1 °/s that data
sheets of consumer parts give as typical (Bosch BMI270, ST LSM6DSO)."""
GAIN: Final = 0.01
"""Share by which a channel's sensitivity is off: normal, one standard deviation."""

_BURST_HZ: Final = 3.0
# Bandwidth of the burst envelope: a knock on a chair lasts about a sixth of a second.
_FRAME: Final = 32
# Noise is made in multiples of so many samples: products of 2 and few other primes are fast to transform.

_EXTREME: Final = 2.5
# Normal scores are cut here: a fit to ten takes knows nothing about rarer ones.


_Single = NDArray[np.float32]


@dataclass(frozen=True, eq=False, slots=True)
class _Way:
    """A :class:`Bout` and its :class:`Kind` as arrays, in g and °/s."""

    kind: Kind
    bout: Bout
    label: int
    mean: Floats  # [W * C]
    deviation: Floats  # [R, W * C]
    noise: _Single  # [B, C] root mean square


class _Model:
    """One persona of a wearer, as arrays. Many devices share it."""

    def __init__(self, wearer: Wearer, persona: int) -> None:
        self.wearer: Final = wearer
        self.persona: Final = wearer.personas[persona]
        self.mix: Final = np.array(wearer.mix, dtype=np.float32)
        channels, unit = len(wearer.channels), np.asarray(wearer.unit)
        self._ways: Final[dict[str, list[_Way]]] = {}
        for name in dict.fromkeys(wearer.schedule):
            kind = wearer.kinds[name]
            rows = np.array(kind.deviation, dtype=float).reshape(-1, channels, kind.width) * unit[:, None]
            deviation = rows.transpose(0, 2, 1).reshape(len(rows), -1)
            for bout in self.persona.bouts[name]:
                mean = np.array(bout.mean, dtype=float).reshape(channels, kind.width).T * unit
                noise = 10 ** (np.array(bout.noise_db, dtype=float).reshape(channels, -1).T / 20) * unit
                way = _Way(
                    kind,
                    bout,
                    wearer.labels.index(kind.label),
                    mean.ravel(),
                    bout.spread * deviation,
                    noise.astype(np.float32),
                )
                self._ways.setdefault(name, []).append(way)

    def chunk(self, names: Sequence[str], rate_hz: float, rng: np.random.Generator) -> tuple[Floats, Labels]:
        """Consecutive bouts: ``[n + 2 lead, C]`` g and °/s, faded in and out over ``2 lead``, and ``[n]`` labels."""
        lead = lead_samples(self.wearer, rate_hz)
        ways = [self._draw_way(name, rng) for name in names]
        lengths = [self._draw_length(way, rate_hz, lead, rng) for way in ways]
        n = sum(lengths) + 2 * lead
        signal = np.zeros((n, len(self.wearer.channels)))
        weight = np.zeros((len(ways), n), dtype=np.float32)  # of each bout's noise
        knocks = _smooth(n, _BURST_HZ / rate_hz, rng)
        start = 0
        for index, (way, length) in enumerate(zip(ways, lengths, strict=True)):
            span = slice(start, start + length + 2 * lead)
            fade = _fade(length, lead)
            signal[span] += fade * self._trajectory(way, length + 2 * lead, rate_hz, rng)
            # Within a chunk noise is one process whose strength changes. Two chunks are independent: their powers add.
            loud = np.exp(way.kind.burst * (knocks[span] - way.kind.burst))
            weight[index, span] = loud * _end_fade(fade[:, 0], lead, first=index == 0, last=index == len(ways) - 1)
            start += length
        levels = np.stack([way.noise for way in ways], axis=-1)  # [B, C, bouts]
        signal += self._noise(weight, levels, rate_hz, rng).T
        return signal, np.repeat(np.array([way.label for way in ways], dtype=np.int16), lengths)

    def _draw_way(self, name: str, rng: np.random.Generator) -> _Way:
        ways = self._ways[name]
        at = rng.random() * sum(way.bout.share for way in ways)
        for way in ways[:-1]:
            at -= way.bout.share
            if at < 0:
                return way
        return ways[-1]

    @staticmethod
    def _draw_length(way: _Way, rate_hz: float, lead: int, rng: np.random.Generator) -> int:
        # Two fades must fit into a bout.
        return max(2 * lead, round(rate_hz * way.bout.seconds * math.exp(way.bout.log_sd * _score(rng))))

    @staticmethod
    def _trajectory(way: _Way, n: int, rate_hz: float, rng: np.random.Generator) -> Floats:
        """``[n, C]`` trend and gait of one bout."""
        kind = way.kind
        scores = np.clip(rng.standard_normal(len(way.deviation)), -_EXTREME, _EXTREME)
        coefficients = (way.mean + scores @ way.deviation).reshape(kind.width, -1)  # [W, C]
        trend: Floats = _cosines(n, kind.trend) @ coefficients[: kind.trend]
        gait = way.bout.gait
        if gait is None:
            return trend
        k = np.arange(n)
        glide = gait.glide_sd * _score(rng)
        hz = gait.hz * math.exp(gait.log_sd * _score(rng))
        turns = hz / rate_hz * (k + glide / 2 * (k * k / n - k))
        phase = rng.vonmises(gait.phase, gait.concentration) + 2 * np.pi * turns
        if gait.wander:
            phase += gait.wander / math.sqrt(rate_hz) * np.cumsum(rng.standard_normal(n))
        # Powers of exp(i phase): a multiplication each instead of a sine and a cosine.
        powers = np.cumprod(np.repeat(np.exp(1j * phase)[:, None], kind.harmonics, axis=1), axis=1)
        waves = np.concatenate([powers.real, powers.imag], axis=1)
        # At low rates harmonics beyond half of the rate would come back as others.
        waves[:, np.tile(np.arange(1, kind.harmonics + 1) * hz >= rate_hz / 2, 2)] = 0.0
        if kind.envelope:
            at = np.linspace(0, len(kind.envelope) - 1, n)
            waves *= np.interp(at, np.arange(len(kind.envelope)), kind.envelope)[:, None]
        return trend + waves @ coefficients[kind.trend :]

    def _noise(self, weight: _Single, levels: _Single, rate_hz: float, rng: np.random.Generator) -> _Single:
        """``[C, n]``: in each band, noise of root mean square 1 times ``levels`` [B, C, bouts] times ``weight``.

        Single precision and one band at a time: what is worked on stays in the processor's cache.
        """
        n, channels = weight.shape[1], len(self.mix)
        size = -(-n // _FRAME) * _FRAME
        edges = [math.ceil(hz * size / rate_hz) for hz in self.wearer.band_hz]
        top = min(edges[-1], size // 2)  # below half of the rate
        drawn = (self.mix @ rng.standard_normal((channels, 2 * top), dtype=np.float32)).view(np.complex64)  # [C, top]
        total = np.zeros((channels, n), dtype=np.float32)
        for level, (low, high) in zip(levels, itertools.pairwise(edges), strict=True):
            if low >= top:
                break
            # A sum over m bins of a complex normal with deviation a has the power 4 a^2 m / size^2. What of a band lies
            # above half of the rate is missing, as behind an anti-alias filter.
            part = slice(low, min(high, top))
            spectrum = np.zeros((channels, size // 2 + 1), dtype=np.complex64)
            spectrum[:, part] = drawn[:, part]
            carrier = np.fft.irfft(spectrum, size)[:, :n]
            total += carrier * (np.float32(size / (2 * math.sqrt(max(1, high - low)))) * level @ weight)
        return total


def _score(rng: np.random.Generator) -> float:
    """A standard normal score, cut."""
    return max(-_EXTREME, min(_EXTREME, float(rng.standard_normal())))


@lru_cache(maxsize=1024)
def _cosines(n: int, terms: int) -> Floats:
    """``[n, terms]`` cosine basis of a bout; bouts of equal length are frequent."""
    basis: Floats = np.cos(np.pi / n * (np.arange(n)[:, None] + 0.5) * np.arange(terms))
    basis.setflags(write=False)
    return basis


@lru_cache(maxsize=1024)
def _fade(length: int, lead: int) -> Floats:
    """``[length + 2 lead, 1]`` weights of a bout; those of neighbours add up to 1."""
    rise = np.sin(np.pi / 2 * (np.arange(2 * lead) + 0.5) / (2 * lead)) ** 2
    fade = np.concatenate([rise, np.ones(length - 2 * lead), rise[::-1]])[:, None]
    fade.setflags(write=False)
    return fade


def _end_fade(fade: Floats, lead: int, *, first: bool, last: bool) -> Floats:
    """Weights as they apply to the strength of noise: square roots at the ends of a chunk."""
    if not first and not last:
        return fade
    fade = fade.copy()
    if first:
        fade[: 2 * lead] **= 0.5
    if last:
        fade[-2 * lead :] **= 0.5
    return fade


def _smooth(n: int, band: float, rng: np.random.Generator) -> Floats:
    """``[n]`` slow noise of about standard deviation 1: random values, ``2 band`` per sample, joined by lines."""
    knots = int(2 * band * n) + 2
    # 1.2: half-way between two knots a line has only half of their variance.
    return 1.2 * np.interp(np.arange(n) * 2 * band, np.arange(knots), rng.standard_normal(knots))


@cache
def _shipped(name: str, persona: int) -> _Model:
    return _Model(load_wearer(name), persona)


class SyntheticSource:
    """A generated wearer with one part; see :class:`device_emulator.source.Source`. It never ends.

    Args:
        sensor: the part. Its channels may be some of the wearer's, in any order.
        rate_hz: samples per second, 5 .. 1000.
        seed: all that happens follows from it, from how the watch is strapped on to every sample.
        persona: number (from 0) or name; None = any, by the seed.
        wearer: name (see :func:`wearers`) or parameters.

    Raises:
        DatasetError: no such wearer or persona, or damaged parameters.
        SensorError: a rate that is out of range, or a channel that the wearer has not.
    """

    def __init__(
        self,
        sensor: Sensor,
        *,
        rate_hz: float = 50.0,
        seed: int = 0,
        persona: int | str | None = None,
        wearer: str | Wearer = "tug",
    ) -> None:
        parameters = load_wearer(wearer) if isinstance(wearer, str) else wearer
        if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
            raise SensorError(f"a generated wearer is sampled at {MIN_RATE_HZ:g} to {MAX_RATE_HZ:g} Hz, not {rate_hz}")
        self._rng = np.random.default_rng(seed)
        chosen = _find_persona(parameters, persona, self._rng)
        self._model = _shipped(wearer, chosen) if isinstance(wearer, str) else _Model(parameters, chosen)
        self.sensor: Final[Sensor] = sensor
        self.rate_hz: Final[float] = rate_hz
        self.kind: Final[SourceKind] = "synthetic"
        self.labels: Final[tuple[str, ...]] = tuple(parameters.labels)
        self.subject: Final[str] = self._model.persona.name
        self._gain, self._bias = _strap(parameters.channels, sensor.channels, self._rng)
        self._schedule = parameters.schedule
        self._cycle = parameters.order == "cycle"
        self._bout = ""
        lead = lead_samples(parameters, rate_hz)
        self._lead = lead
        self._counts: Counts = np.empty((0, len(sensor.channels)), dtype=np.int32)
        self._label: Labels = np.empty(0, dtype=np.int16)
        self._at = 0
        # The last 2 leads of what was made so far, still fading out, and the labels that lag by one lead.
        self._tail: Floats = np.zeros((2 * lead, len(parameters.channels)))
        self._late: Labels = np.full(lead, -1, dtype=np.int16)
        # Devices that start together are not to rise from their chairs together: begin anywhere after the fade.
        self._generate()
        self._at = int(self._rng.integers(2 * lead, max(2 * lead + 1, len(self._label))))

    def read(self, samples: int) -> Block:
        """The next ``samples`` samples."""
        while len(self._label) - self._at < samples:
            self._generate()
        part = slice(self._at, self._at + samples)
        self._at += samples
        return Block(self._counts[part], self._label[part])

    def _generate(self) -> None:
        """Make one more chunk, and forget what has been read."""
        signal, label = self._model.chunk(self._next_bouts(), self.rate_hz, self._rng)
        fading = len(self._tail)
        signal[:fading] += self._tail
        self._tail = signal[-fading:].copy()
        counts = self.sensor.to_counts(signal[:-fading] @ self._gain + self._bias)
        label = np.concatenate([self._late, label])
        self._late = label[-self._lead :]
        self._counts = np.concatenate([self._counts[self._at :], counts])
        self._label = np.concatenate([self._label[self._at :], label[: -self._lead]])
        self._at = 0

    def _next_bouts(self) -> Sequence[str]:
        if self._cycle:
            return self._schedule
        others = [name for name in self._schedule if name != self._bout] or self._schedule
        self._bout = others[int(self._rng.integers(len(others)))]
        return [self._bout]


def _find_persona(wearer: Wearer, persona: int | str | None, rng: np.random.Generator) -> int:
    names = [each.name for each in wearer.personas]
    any_one = int(rng.integers(len(names)))  # drawn in any case, so that naming the same persona changes nothing else
    if persona is None:
        return any_one
    if isinstance(persona, str) and persona in names:
        return names.index(persona)
    if isinstance(persona, int) and 0 <= persona < len(names):
        return persona
    raise DatasetError(f"no persona {persona!r}; there are 0 to {len(names) - 1}: {', '.join(names)}")


def _strap(have: Sequence[str], want: Sequence[str], rng: np.random.Generator) -> tuple[Floats, Floats]:
    """How this watch is worn and how good its part is: ``[C_wearer, C_sensor]`` matrix and ``[C_sensor]`` bias."""
    lacking = [channel for channel in want if channel not in have]
    if lacking:
        raise SensorError(f"the wearer has no {', '.join(lacking)}; it has {', '.join(have)}")
    axis = rng.standard_normal(3)
    x, y, z = axis / np.linalg.norm(axis)
    angle = np.deg2rad(STRAP_DEG) * rng.standard_normal()
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross  # Rodrigues
    whole = np.eye(len(have))
    for kind in ("acc", "gyro"):
        triple = [have.index(f"{kind}_{axis_name}") for axis_name in "xyz" if f"{kind}_{axis_name}" in have]
        if len(triple) == len(turn):
            whole[np.ix_(triple, triple)] = turn
    gain = 1 + GAIN * rng.standard_normal(len(have))
    bias = np.array([GYRO_BIAS_DPS if channel.startswith("gyro") else ACC_BIAS_G for channel in have])
    bias *= rng.standard_normal(len(have))
    columns = [have.index(channel) for channel in want]
    return (whole * gain)[:, columns], bias[columns]
