"""One part: how its ADC turns g and °/s into counts, and how the part sits on the body.

A :class:`Sensor` is what makes a codebook's physical thresholds into the integers that a device compares with. The same
codebook therefore serves a 12-bit BMA400 and a 16-bit LSM6DSO.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from quantization.errors import SensorError
from quantization.imu import Counts, Floats, check_channels

MIN_ADC_BITS: Final = 8
MAX_ADC_BITS: Final = 16


@dataclass(frozen=True)
class Sensor:
    """The ADC of one part: ``physical = (count - offset) * lsb``.

    Args:
        name: the part and its range, for people.
        channels: channel names, in the order of a sample's columns.
        adc_bits: 8 to 16.
        lsb: per channel, physical units (g or °/s) in one count; above 0.
        offset: per channel, the count that reads zero.
        signed: counts run from ``-2**(adc_bits-1)`` (two's complement) rather than from 0.

    Raises:
        SensorError: for a description that no part could have.

    >>> part = Sensor.symmetric("demo", ("acc_x",), adc_bits=12, full_scale={"acc": 8.0})
    >>> part.to_counts([[1.0], [-9.0]]).ravel().tolist()
    [256, -2048]
    """

    name: str
    channels: tuple[str, ...]
    adc_bits: int
    lsb: tuple[float, ...]
    offset: tuple[int, ...]
    signed: bool = True

    def __post_init__(self) -> None:
        check_channels(self.channels)
        if not MIN_ADC_BITS <= self.adc_bits <= MAX_ADC_BITS:
            raise SensorError(f"ADC bits must be {MIN_ADC_BITS} to {MAX_ADC_BITS}, not {self.adc_bits}")
        if not len(self.lsb) == len(self.offset) == len(self.channels):
            raise SensorError(f"{len(self.channels)} channels need as many LSBs and offsets")
        if not all(np.isfinite(lsb) and lsb > 0 for lsb in self.lsb):
            raise SensorError(f"every LSB must be a positive number: {self.lsb}")
        if not all(self.count_min <= offset <= self.count_max for offset in self.offset):
            raise SensorError(f"offsets {self.offset} lie outside of {self.count_min} .. {self.count_max}")

    @classmethod
    def symmetric(
        cls, name: str, channels: tuple[str, ...], *, adc_bits: int, full_scale: Mapping[str, float]
    ) -> Sensor:
        """A signed part whose ranges are ± ``full_scale["acc"]`` g and ± ``full_scale["gyro"]`` °/s."""
        scale = []
        for channel in channels:
            kind = channel.split("_", maxsplit=1)[0]
            if kind not in full_scale:
                raise SensorError(f"no full scale is given for {channel} (kind {kind!r})")
            scale.append(full_scale[kind] / 2 ** (adc_bits - 1))
        return cls(name, channels, adc_bits, tuple(scale), (0,) * len(channels))

    @property
    def count_min(self) -> int:
        """The lowest count that the ADC gives."""
        return -(1 << (self.adc_bits - 1)) if self.signed else 0

    @property
    def count_max(self) -> int:
        """The highest count that the ADC gives."""
        return self.count_min + (1 << self.adc_bits) - 1

    def all_counts(self) -> Counts:
        """Every count that the ADC can give, ``[2**adc_bits]``, ascending."""
        return np.arange(self.count_min, self.count_max + 1, dtype=np.int32)

    def to_counts(self, physical: ArrayLike) -> Counts:
        """What the ADC gives for ``[n, channels]`` physical values: rounded to the nearest count, saturated."""
        values = np.asarray(physical, dtype=np.float64)
        counts = np.rint(values / np.asarray(self.lsb)) + np.asarray(self.offset)
        saturated: Counts = np.clip(counts, self.count_min, self.count_max).astype(np.int32)
        return saturated

    def to_physical(self, counts: ArrayLike) -> Floats:
        """``[n, channels]`` counts in g and °/s. Exactly the expression from which thresholds are derived."""
        physical: Floats = (np.asarray(counts) - np.asarray(self.offset)) * np.asarray(self.lsb)
        return physical

    def to_dict(self) -> dict[str, object]:
        """The JSON form, read back by :meth:`from_dict`."""
        return {
            "name": self.name,
            "channels": list(self.channels),
            "adc_bits": self.adc_bits,
            "lsb": list(self.lsb),
            "offset": list(self.offset),
            "signed": self.signed,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Sensor:
        """Read the JSON form.

        Raises:
            SensorError: a field is missing or of the wrong type.
        """
        try:
            return cls(
                name=str(data["name"]),
                channels=tuple(data["channels"]),  # type: ignore[arg-type]
                adc_bits=int(data["adc_bits"]),  # type: ignore[call-overload]
                lsb=tuple(float(lsb) for lsb in data["lsb"]),  # type: ignore[attr-defined]
                offset=tuple(int(offset) for offset in data["offset"]),  # type: ignore[attr-defined]
                signed=bool(data["signed"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, SensorError):
                raise
            raise SensorError(f"not a sensor description: {error!r}") from error


@dataclass(frozen=True)
class Part:
    """A part that people buy: its ADC bits and the full scales that it offers."""

    adc_bits: int
    acc_g: tuple[float, ...]
    gyro_dps: tuple[float, ...] = ()

    def sensor(self, name: str, channels: tuple[str, ...], *, acc_g: float, gyro_dps: float | None) -> Sensor:
        """The sensor at one choice of ranges; :class:`SensorError` if the part does not offer it."""
        if acc_g not in self.acc_g:
            raise SensorError(f"{name} has no range of ±{acc_g:g} g; it has {_listed(self.acc_g)} g")
        full_scale = {"acc": acc_g}
        if gyro_dps is not None:
            if gyro_dps not in self.gyro_dps:
                offers = _listed(self.gyro_dps) + " deg/s" if self.gyro_dps else "no gyroscope"
                raise SensorError(f"{name} has no range of ±{gyro_dps:g} deg/s; it has {offers}")
            full_scale["gyro"] = gyro_dps
        return Sensor.symmetric(f"{name} ±{acc_g:g} g", channels, adc_bits=self.adc_bits, full_scale=full_scale)


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"±{value:g}" for value in values)


_G = (2.0, 4.0, 8.0, 16.0)
_DPS = (125.0, 250.0, 500.0, 1000.0, 2000.0)

PARTS: Final[Mapping[str, Part]] = {
    # A 12-bit part with a gyroscope: the reference that the results are measured with.
    "generic12": Part(12, _G, _DPS),
    # Full scales from each part's data sheet (Bosch BST-BMI270-DS000, BST-BMA400-DS000; ST DocID LSM6DSO, LIS2DH12).
    "bmi270": Part(16, _G, _DPS),
    "bma400": Part(12, _G),
    "lsm6dso": Part(16, _G, _DPS),
    "lis2dh12": Part(12, _G),
}


@dataclass(frozen=True)
class Axes:
    """A signed axis permutation: how a part is turned in its case, applied to counts before quantization.

    Entry *i* names the input column (from 1) that becomes output column *i*; a minus sign flips it. The same three
    entries apply to the accelerometer and to the gyroscope of one part.

    >>> Axes((2, -1, 3)).apply(np.array([[10, 20, 30]]), Sensor.symmetric("p", ("acc_x", "acc_y", "acc_z"),
    ...                        adc_bits=12, full_scale={"acc": 2.0})).tolist()
    [[20, -10, 30]]
    """

    entries: tuple[int, ...] = (1, 2, 3)

    def __post_init__(self) -> None:
        if sorted(abs(entry) for entry in self.entries) != [1, 2, 3]:
            raise SensorError(f"axes must be a signed permutation of 1 2 3 such as (2, -1, 3), not {self.entries}")

    @property
    def identity(self) -> bool:
        """Nothing to do."""
        return self.entries == (1, 2, 3)

    def apply(self, counts: Counts, sensor: Sensor) -> Counts:
        """Turn ``[n, channels]`` counts (channels a multiple of three). Flips go about the part's zero and saturate.

        Raises:
            SensorError: the channels are not whole triples, or axes with unequal LSBs would change places.
        """
        if self.identity:
            return counts
        if counts.shape[1] % 3:
            raise SensorError(f"axes need x, y, z triples; the sensor has {counts.shape[1]} channels")
        triples = counts.shape[1] // 3
        columns = np.array([3 * t + abs(e) - 1 for t in range(triples) for e in self.entries])
        if [sensor.lsb[column] for column in columns] != list(sensor.lsb):
            raise SensorError(f"axes cannot change places where their LSBs differ: {sensor.lsb}")
        signs = np.sign(np.array(self.entries * triples, dtype=np.int32))
        zero = np.asarray(sensor.offset, dtype=np.int32)
        turned = signs * (counts[:, columns] - zero[columns]) + zero
        return np.clip(turned, sensor.count_min, sensor.count_max).astype(np.int32)
