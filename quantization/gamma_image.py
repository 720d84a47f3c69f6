"""The γ quantizer for RAW images: one curve a colour, from the black level up.

After the RAW form of γ-Quant (Fatima et al. 2025, arXiv 2509.22448). Per colour, with black point p, range r and γ::

    u = (x − p) / r, clipped to [0, 1]
    y = ((u + ε)^γ − ε^γ) / ((1 + ε)^γ − ε^γ)
    k = floor(y 2^b), at most 2^b − 1;    the network sees 2k / (2^b − 1) − 1

The published form is kept as :class:`PaperQuantizer`: ``k = floor(x^γ (2^b − 1))`` with one γ. It reaches its top code
only at full scale, and has neither a black point nor a range to learn.

Values x are fractions of full scale (:mod:`quantization.raw`). As for motion, the forward pass uses the very thresholds
that the codebook gets, in float64: a camera's lookup table and the training graph agree on every count.
"""

from __future__ import annotations

import math
from typing import Final, cast

import numpy as np
import torch
from torch import Tensor, nn

from quantization.codebook import MAX_BITS, Codebook
from quantization.errors import CodebookError
from quantization.gamma import EPSILON, FixedQuantizer, LearnedQuantizer, Quantizer
from quantization.imu import Floats
from quantization.raw import COLOURS, FRAME_RATE_HZ, PLANES

LEAST_GAMMA: Final = 0.05
"""Where the published form's γ stops. It has no bound of its own, and a negative γ would turn the curve round."""
_STARTS: Final = np.linspace(0.25, 1.0, 151)
"""The γ that training may start from."""
MIDDLE_GAMMA: Final = 0.5
GAMMA_LIMIT: Final = 4.0
"""γ stays within 1/8 .. 2: a quarter and four times of the middle."""
BLACK_LIMIT: Final = 0.125
"""The black point stays within this share of the range, on either side of black."""
MIDDLE_RANGE: Final = 0.7
RANGE_LIMIT: Final = 2.5
"""The range stays within 0.28 .. 1.75 of where it starts: brighter light than training has is rare.

Together the three bounds leave light in several codes, whatever training asks for: once all light is in one code,
nothing pulls a curve back."""


class PlaneQuantizer(Quantizer):
    """A quantizer of planes ``[B, 4, h, w]`` (:data:`quantization.raw.PLANES`), float64 fractions of full scale."""

    def codes(self, x: Tensor) -> Tensor:
        """``[B, 4, h, w]`` to int64 codes of that shape."""
        thresholds = self.thresholds().detach()
        x = x.detach().to(torch.float64)
        found = [torch.bucketize(x[:, p].contiguous(), thresholds[c], right=True) for p, c in enumerate(PLANES)]
        return torch.stack(found, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, 4, h, w]`` to what the network sees, float32 in [-1, 1]."""
        return 2.0 * self.codes(x).to(torch.float32) / (2**self.bits - 1) - 1.0

    def image_codebook(self) -> Codebook:
        """Freeze the curves into what cameras and gateways share."""
        return self.codebook(COLOURS, FRAME_RATE_HZ)


class FixedPlanes(PlaneQuantizer, FixedQuantizer):
    """A codebook for images that does not learn."""


class _LearnedPlanes(PlaneQuantizer, LearnedQuantizer):
    def forward(self, x: Tensor) -> Tensor:
        """As :meth:`PlaneQuantizer.forward`; backward, the gradient of :meth:`soft`."""
        soft = self.soft(x)
        return PlaneQuantizer.forward(self, x) + (soft - soft.detach())


class ImageQuantizer(_LearnedPlanes):
    """The learned curves: γ, black point and range of red, green and blue.

    Args:
        bits: 1 to 8.
        gamma: where each colour's γ starts, ``[3]``.
        white: where each colour's range starts, ``[3]``, fractions of full scale.

    Raises:
        CodebookError: bits, γ or ranges out of range.

    >>> curve = ImageQuantizer(2, gamma=[1.0, 1.0, 1.0], white=[1.0, 1.0, 0.5])
    >>> [[round(t, 3) for t in row] for row in curve.thresholds()[1:].tolist()]
    [[0.25, 0.5, 0.75], [0.125, 0.25, 0.375]]
    """

    def __init__(self, bits: int, *, gamma: list[float], white: list[float]) -> None:
        super().__init__()
        if not 1 <= bits <= MAX_BITS:
            raise CodebookError(f"bits must be 1 to {MAX_BITS}, not {bits}")
        start = torch.tensor(gamma, dtype=torch.float32)
        ranges = torch.tensor(white, dtype=torch.float32)
        relative = start / MIDDLE_GAMMA
        fits = (relative > 1 / GAMMA_LIMIT) & (relative < GAMMA_LIMIT) & (ranges > 0) & torch.isfinite(ranges)
        if not bool(fits.all()):
            raise CodebookError(f"γ {gamma} or ranges {white} that no curve can start from")
        self.bits = bits
        self.register_buffer("initial_range", ranges)
        # On logarithmic or relative scales, as for motion, so that one learning rate fits; all within smooth bounds.
        self.gamma_raw = nn.Parameter(_unbounded(relative, GAMMA_LIMIT))
        self.black_raw = nn.Parameter(torch.zeros(3))
        self.range_raw = nn.Parameter(_unbounded(torch.full((3,), 1 / MIDDLE_RANGE), RANGE_LIMIT))

    @classmethod
    def fitted(cls, bits: int, values: Floats) -> ImageQuantizer:
        """Start where half of the light's values take half of the codes.

        Args:
            bits: 1 to 8.
            values: ``[n, 3]`` fractions of full scale, as the training set has them.
        """
        white = np.maximum(np.quantile(values, 0.999, axis=0), 1e-3)
        middle = np.clip(np.median(values, axis=0) / white, 1e-4, 0.999)
        floor = EPSILON**_STARTS
        y = ((middle[:, None] + EPSILON) ** _STARTS - floor) / ((1 + EPSILON) ** _STARTS - floor)
        gamma = _STARTS[np.abs(y - 0.5).argmin(axis=1)]
        return cls(bits, gamma=gamma.tolist(), white=white.tolist())

    @property
    def gamma(self) -> Tensor:
        """``[3]`` exponent, within 1/8 .. 2."""
        return MIDDLE_GAMMA * _bounded(self.gamma_raw, GAMMA_LIMIT)

    @property
    def range(self) -> Tensor:
        """``[3]`` from the black point to the white point, fractions of full scale."""
        return MIDDLE_RANGE * _bounded(self.range_raw, RANGE_LIMIT) * cast("Tensor", self.initial_range)

    @property
    def black(self) -> Tensor:
        """``[3]`` black point, fractions of full scale."""
        return BLACK_LIMIT * torch.tanh(self.black_raw / BLACK_LIMIT) * self.range

    def soft(self, x: Tensor) -> Tensor:
        """``[B, 4, h, w]``: 2y − 1, without rounding."""
        gamma, black, extent = (value[list(PLANES), None, None] for value in (self.gamma, self.black, self.range))
        u = ((x.to(torch.float32) - black) / extent).clamp(0, 1)
        floor = EPSILON**gamma
        return 2 * ((u + EPSILON) ** gamma - floor) / ((1 + EPSILON) ** gamma - floor) - 1

    def _inverse(self, y: Tensor) -> Tensor:
        """``[n]`` values of y to ``[3, n]`` fractions of full scale, float64."""
        gamma, black, extent = (v.detach().to(torch.float64)[:, None] for v in (self.gamma, self.black, self.range))
        floor = EPSILON**gamma
        return black + extent * ((y * ((1 + EPSILON) ** gamma - floor) + floor) ** (1 / gamma) - EPSILON)

    def thresholds(self) -> Tensor:
        """``[3, 2**bits - 1]`` float64."""
        return self._inverse(torch.arange(1, 2**self.bits, dtype=torch.float64) / 2**self.bits)

    def levels(self) -> Tensor:
        """``[3, 2**bits]`` float64: the middle of each code."""
        return self._inverse((torch.arange(2**self.bits, dtype=torch.float64) + 0.5) / 2**self.bits)


def _bounded(raw: Tensor, limit: float) -> Tensor:
    """1 at 0, and smoothly within 1 / limit .. limit: on a logarithmic scale."""
    return torch.exp(math.log(limit) * torch.tanh(raw / math.log(limit)))


def _unbounded(value: Tensor, limit: float) -> Tensor:
    """The inverse of :func:`_bounded`."""
    return math.log(limit) * torch.atanh(torch.log(value) / math.log(limit))


class PaperQuantizer(_LearnedPlanes):
    """The published form: one γ from 1.0, nothing else to learn.

    Args:
        bits: 1 to 8.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.gamma_raw = nn.Parameter(torch.ones(()))

    @property
    def gamma(self) -> Tensor:
        """The exponent, at least 0.05."""
        return self.gamma_raw.clamp_min(LEAST_GAMMA)

    def soft(self, x: Tensor) -> Tensor:
        """``[B, 4, h, w]``: 2 x^γ − 1. The power's slope is infinite at 0 for γ < 1, so x is at least 1e-4."""
        return 2 * x.to(torch.float32).clamp(1e-4, 1) ** self.gamma - 1

    def _inverse(self, y: Tensor) -> Tensor:
        return (y ** (1 / self.gamma.detach().to(torch.float64)))[None, :].expand(3, -1)

    def thresholds(self) -> Tensor:
        """``[3, 2**bits - 1]`` float64: ``floor(x^γ (2^b − 1))`` steps at ``k / (2^b − 1)``."""
        return self._inverse(torch.arange(1, 2**self.bits, dtype=torch.float64) / (2**self.bits - 1))

    def levels(self) -> Tensor:
        """``[3, 2**bits]`` float64."""
        k = torch.arange(2**self.bits, dtype=torch.float64)
        return self._inverse(((k + 0.5) / (2**self.bits - 1)).clamp_max(1))


class UnquantizedPlanes(nn.Module):
    """The reference without a quantizer: the ADC's own counts as a share of full scale."""

    def forward(self, x: Tensor) -> Tensor:
        """``[B, 4, h, w]`` fractions of full scale to float32 [-1, 1]."""
        return 2 * x.to(torch.float32).clamp(0, 1) - 1


def linear_image(bits: int) -> Codebook:
    """Even steps over the full scale: what dropping an ADC's low bits does."""
    thresholds = np.tile(np.arange(1, 2**bits) / 2**bits, (3, 1))
    levels = np.tile((np.arange(2**bits) + 0.5) / 2**bits, (3, 1))
    return Codebook(COLOURS, bits, FRAME_RATE_HZ, thresholds=thresholds, levels=levels)


def log_image(bits: int, adc_bits: int = 12) -> Codebook:
    """The logarithmic baseline of γ-Quant: ``floor(ln(count + 1) / ln(2^n) · (2^b − 1))``."""

    def light(share: Floats) -> Floats:
        counts = 2.0 ** (adc_bits * share) - 1
        return np.tile(counts / (2**adc_bits - 1), (3, 1))

    steps = 2**bits - 1
    thresholds = light(np.arange(1, 2**bits) / steps)
    levels = light(np.minimum((np.arange(2**bits) + 0.5) / steps, 1.0))
    return Codebook(COLOURS, bits, FRAME_RATE_HZ, thresholds=thresholds, levels=levels)
