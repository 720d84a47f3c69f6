"""RAW frames: what an image sensor's ADC gives behind a Bayer colour filter array, before any processing.

A *mosaic* is ``[H, W]`` counts, one a photosite, rows from the top. Its 2 × 2 cells repeat the colours of the filter
array (CFA); *positions* 0 to 3 are a cell's photosites in reading order. *Planes* are ``[4, H/2, W/2]``: the mosaic
taken apart by colour, always in the order red, green beside red, green beside blue, blue (:data:`PLANES`), whatever the
CFA. Values in physical units are fractions of full scale: 0 is the black level, 1 the white level.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from quantization.codebook import Codebook
from quantization.errors import CodebookError, FrameError, SensorError
from quantization.imu import Floats

Mosaic = NDArray[np.uint16]
"""``[H, W]`` ADC counts, both sides even."""
CodeMosaic = NDArray[np.uint8]
"""``[H, W]`` codes, each in ``0 .. 2**bits - 1``."""

T = TypeVar("T", np.uint8, np.uint16)

COLOURS: Final = ("red", "green", "blue")
"""The channels of a codebook for images: one curve a colour."""
PLANES: Final = (0, 1, 1, 2)
"""Colour of each plane, as an index into :data:`COLOURS`."""
FRAME_RATE_HZ: Final = 1.0
"""What a codebook for images gives as its sampling rate: frames come at any rate."""
MIN_ADC_BITS: Final = 8
MAX_ADC_BITS: Final = 16
MAX_SIDE: Final = 8192
"""Photosites along a side: bounds what a hostile header may ask for."""
ORDINARY_LIGHT: Final = 0.09
"""Mean light of an ordinary exposure: that of the genuine PASCALRAW frames."""
MAX_LIFT: Final = 7
LIFT_SLACK: Final = 1.2
"""A camera keeps its lift until the mean is so far beyond the limits of :func:`lift_for`: it must not flicker."""


class Cfa(IntEnum):
    """The order of a Bayer filter's colours, row by row. The numbers travel in frame headers."""

    RGGB = 0
    GRBG = 1
    GBRG = 2
    BGGR = 3

    @property
    def positions(self) -> tuple[int, int, int, int]:
        """The position in a 2 × 2 cell of each plane: red, green beside red, green beside blue, blue.

        >>> Cfa.GRBG.positions
        (1, 0, 3, 2)
        """
        red = int(self)
        # Green beside red shares its row: the other column. Blue lies across.
        return red, red ^ 1, red ^ 2, red ^ 3


@dataclass(frozen=True)
class CameraSensor:
    """How an image sensor's counts relate to light.

    Args:
        name: of the part or of the file that it was read from.
        cfa: order of the colours at the mosaic's top left corner.
        adc_bits: 8 to 16.
        black: the count without light, at each position of a cell.
        white: the count at which a photosite is full, above every black level.

    Raises:
        SensorError: numbers that no part could have.
    """

    name: str
    cfa: Cfa
    adc_bits: int = 12
    black: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    white: float = 4095.0

    def __post_init__(self) -> None:
        if not MIN_ADC_BITS <= self.adc_bits <= MAX_ADC_BITS:
            raise SensorError(f"{self.name}: an ADC has {MIN_ADC_BITS} to {MAX_ADC_BITS} bits, not {self.adc_bits}")
        if not all(0 <= black < self.white for black in self.black) or not self.white < 2**self.adc_bits:
            raise SensorError(
                f"{self.name}: black {self.black} and white {self.white:g} must rise within 0 .. {2**self.adc_bits - 1}"
            )

    def to_light(self, counts: NDArray[np.uint16], position: int) -> Floats:
        """Counts at one position of a cell as fractions of full scale; below black is below 0, beyond white above 1."""
        black = self.black[position]
        return (counts.astype(np.float64) - black) / (self.white - black)

    def lookup(self, codebook: Codebook, lift: int = 0) -> NDArray[np.uint8]:
        """``[4, 2**adc_bits]``: the code of every count at each position of a cell. All that a camera computes with.

        Args:
            codebook: for images.
            lift: 0 .. 7; light is doubled so often before the curve.

        Raises:
            CodebookError: the codebook is not one for images.
        """
        check_images(codebook)
        table = np.empty((4, 2**self.adc_bits), dtype=np.uint8)
        every = np.arange(2**self.adc_bits, dtype=np.uint16)
        for plane, position in enumerate(self.cfa.positions):
            thresholds = codebook.thresholds[PLANES[plane]]
            table[position] = np.searchsorted(thresholds, self.to_light(every, position) * 2**lift, side="right")
        return table


@dataclass(frozen=True, eq=False)
class RawFrame:
    """One exposure.

    Args:
        counts: ``[H, W]`` uint16, sides even and 2 to 8192.
        sensor: what took it.
        exposure_us: 0 = not known.

    Raises:
        FrameError: a mosaic of another type or size, or counts beyond the ADC's.
    """

    counts: Mosaic
    sensor: CameraSensor
    exposure_us: int = 0

    def __post_init__(self) -> None:
        check_size(*self.counts.shape)
        if self.counts.dtype != np.uint16:
            raise FrameError("size", f"counts must be uint16, not {self.counts.dtype}")
        if int(self.counts.max()) >= 2**self.sensor.adc_bits:
            raise FrameError("field", f"a count of {self.counts.max()} is beyond {self.sensor.adc_bits} bits")

    @property
    def mean_light(self) -> float:
        """Mean fraction of full scale."""
        black = self.sensor.black
        shares = [(self.counts[sites(at)].mean() - black[at]) / (self.sensor.white - black[at]) for at in range(4)]
        return float(np.mean(shares))

    def codes(self, lookup: NDArray[np.uint8]) -> CodeMosaic:
        """``[H, W]`` codes by :meth:`CameraSensor.lookup`'s table."""
        mosaic = np.empty(self.counts.shape, dtype=np.uint8)
        for position in range(4):
            at = sites(position)
            mosaic[at] = lookup[position][self.counts[at]]
        return mosaic

    def quantized(self, codebook: Codebook) -> CodeMosaic:
        """``[H, W]`` codes, lifted by :func:`lift_for`: as a camera sends its first frame."""
        return self.codes(self.sensor.lookup(codebook, lift_for(self.mean_light)))

    def binned(self, factor: int) -> RawFrame:
        """Average ``factor`` × ``factor`` photosites of one colour; what does not fill a last cell is cut off.

        Raises:
            FrameError: ``size``: nothing would be left.
        """
        if factor == 1:
            return self
        planes = to_planes(self.counts, self.sensor.cfa)
        height, width = (side // max(1, factor) for side in planes.shape[1:])
        if not (factor >= 1 and height and width):
            raise FrameError("size", f"{self.counts.shape[1]} × {self.counts.shape[0]} cannot be binned by {factor}")
        cut = planes[:, : height * factor, : width * factor]
        sums = cut.reshape(4, height, factor, width, factor).sum(axis=(2, 4), dtype=np.uint64)
        means = ((2 * sums + factor**2) // (2 * factor**2)).astype(np.uint16)
        return RawFrame(to_mosaic(means, self.sensor.cfa), self.sensor, self.exposure_us)


def check_size(*sides: int) -> None:
    """Raise :class:`FrameError` (``size``) unless there are two even sides of 2 .. 8192."""
    if len(sides) != 2 or any(side % 2 or not 2 <= side <= MAX_SIDE for side in sides):
        raise FrameError("size", f"a mosaic has two even sides of 2 to {MAX_SIDE}, not {' × '.join(map(str, sides))}")


def lift_for(mean_light: float, before: int | None = None) -> int:
    """How often a frame's light is doubled before the curve, so that dim frames use all codes: 0 .. 7.

    The most doublings that leave the mean at or below :data:`ORDINARY_LIGHT`.

    Args:
        mean_light: of the frame, fraction of full scale.
        before: the lift of the frame before, kept while it nearly fits.

    >>> [lift_for(mean) for mean in (0.3, 0.09, 0.045, 0.044, 0.009, 0.0)]
    [0, 0, 1, 1, 3, 7]
    """
    if before is not None and ORDINARY_LIGHT / 2 / LIFT_SLACK < mean_light * 2**before <= ORDINARY_LIGHT * LIFT_SLACK:
        return before
    lift = 0
    while lift < MAX_LIFT and mean_light * 2 ** (lift + 1) <= ORDINARY_LIGHT:
        lift += 1
    return lift


def check_images(codebook: Codebook) -> None:
    """Raise :class:`CodebookError` unless the codebook is one for images."""
    if codebook.channels != COLOURS:
        raise CodebookError(f"a codebook for images has {', '.join(COLOURS)}, not {', '.join(codebook.channels)}")


def sites(position: int) -> tuple[slice, slice]:
    """The rows and columns of a mosaic whose photosites are at one position of their cells.

    >>> sites(2)
    (slice(1, None, 2), slice(0, None, 2))
    """
    return slice(position >> 1, None, 2), slice(position & 1, None, 2)


def to_planes(mosaic: NDArray[T], cfa: Cfa) -> NDArray[T]:
    """``[H, W]`` to ``[4, H/2, W/2]``, planes in the order of :data:`PLANES`.

    >>> to_planes(np.array([[10, 20], [30, 40]], dtype=np.uint8), Cfa.BGGR).ravel().tolist()
    [40, 30, 20, 10]
    """
    return np.stack([mosaic[sites(position)] for position in cfa.positions])


def to_mosaic(planes: NDArray[T], cfa: Cfa) -> NDArray[T]:
    """``[4, h, w]`` planes back to ``[2 h, 2 w]``: the inverse of :func:`to_planes`."""
    mosaic = np.empty((planes.shape[1] * 2, planes.shape[2] * 2), dtype=planes.dtype)
    for plane, position in zip(planes, cfa.positions, strict=True):
        mosaic[sites(position)] = plane
    return mosaic
