"""What a device might do beyond comparing with thresholds, and one network for several bit depths: tried, not shipped.

Each wraps the γ quantizer and trains with it in the loop, sample by sample, as the device would run it:

- ``hysteresis-h``: the code moves only once the value is ``h`` of a cell beyond the edge: less chatter, fewer bits;
- ``feedback``: first-order error feedback (noise shaping): what quantization left over is added to the next sample;
- ``dither``: uniform noise as wide as a channel's mean cell is added before quantization (non-subtractive), new noise
  every time;
- ``any-bit``: in training each batch sees 4, 3 or 2 of the code's upper bits: the tables are nested.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quantization.codebook import Codebook
from quantization.gamma import GammaQuantizer, LearnedQuantizer, Quantizer, Unquantized
from quantization.imu import Codes, Floats

LOOPS: Final = ("plain", "hysteresis-0.25", "hysteresis-0.5", "feedback", "dither")
ANY_BIT: Final = "any-bit"
SHIFTS: Final = (0, 1, 2)
"""Bits that any-bit training may drop from four."""


def loop_codes(values: Floats, codebook: Codebook, loop: str, generator: np.random.Generator) -> Codes:
    """Codes of ``[..., T, C]`` values by one of :data:`LOOPS`; the loop begins anew with each ``[T, C]``."""
    kind, _, amount = loop.partition("-")
    if kind == "plain":
        return _compare(values, codebook.thresholds)
    if kind == "dither":
        width = np.diff(codebook.levels, axis=1).mean(axis=1)
        noise = generator.uniform(-0.5, 0.5, values.shape) * width
        return _compare(values + noise, codebook.thresholds)
    steps = np.moveaxis(values, -2, 0)  # [T, ..., C]
    out = np.empty(steps.shape, dtype=np.uint8)
    if kind == "hysteresis":
        _hysteresis(steps, codebook, float(amount), out)
    elif kind == "feedback":
        _feedback(steps, codebook, out)
    else:
        raise ValueError(f"no loop {loop!r}; there are {', '.join(LOOPS)}")
    return np.moveaxis(out, 0, -2)


def _compare(values: Floats, thresholds: Floats) -> Codes:
    return (values[..., None] >= thresholds).sum(axis=-1).astype(np.uint8)


def _hysteresis(steps: Floats, codebook: Codebook, amount: float, out: Codes) -> None:
    margin = amount * np.diff(codebook.levels, axis=1)  # [C, 2^b - 1]: between the codes beside an edge
    up, down = codebook.thresholds + margin, codebook.thresholds - margin
    code = _compare(steps[0], codebook.thresholds)
    out[0] = code
    for t in range(1, len(steps)):
        # Above the edge's margin for certain, below it for certain; in between the code stays.
        code = np.clip(code, _compare(steps[t], up), _compare(steps[t], down))
        out[t] = code


def _feedback(steps: Floats, codebook: Codebook, out: Codes) -> None:
    rows = np.arange(steps.shape[-1])
    low, high = codebook.levels[:, 0], codebook.levels[:, -1]
    error = np.zeros(steps.shape[1:])
    for t in range(len(steps)):
        wanted = steps[t] + error
        out[t] = _compare(wanted, codebook.thresholds)
        # Beyond the range the error would grow without bound: what is clipped is lost, as without feedback.
        error = np.clip(wanted, low, high) - codebook.levels[rows, out[t]]


class _Wrapped(LearnedQuantizer):
    """A γ quantizer inside; its curve and its gradient stay."""

    def __init__(self, inner: GammaQuantizer) -> None:
        super().__init__()
        self.inner, self.bits = inner, inner.bits

    def thresholds(self) -> Tensor:
        """Those of the curve."""
        return self.inner.thresholds()

    def levels(self) -> Tensor:
        """Those of the curve."""
        return self.inner.levels()

    def soft(self, x: Tensor) -> Tensor:
        """That of the curve."""
        return self.inner.soft(x)


class LoopQuantizer(_Wrapped):
    """Codes come from a device's loop over ``[B, T, C]`` windows."""

    def __init__(self, inner: GammaQuantizer, loop: str) -> None:
        super().__init__(inner)
        self.loop = loop
        self._generator = np.random.default_rng(0)

    def codes(self, x: Tensor) -> Tensor:
        """``[B, T, C]`` to int64 codes."""
        book = self.codebook(tuple(f"c{i}" for i in range(x.shape[-1])), 50.0)
        values: NDArray[np.float64] = x.detach().double().numpy()
        return torch.from_numpy(loop_codes(values, book, self.loop, self._generator).astype(np.int64))


class AnyBitQuantizer(_Wrapped):
    """The network sees the upper bits; how many changes from batch to batch in training.

    Attributes:
        shift: bits that are dropped while not training.
    """

    def __init__(self, inner: GammaQuantizer) -> None:
        super().__init__(inner)
        self.shift = 0

    def forward(self, x: Tensor) -> Tensor:
        """The upper bits' code, evenly spaced in [-1, 1]."""
        shift = SHIFTS[int(torch.randint(len(SHIFTS), ()))] if self.training else self.shift
        codes = self.codes(x) >> shift
        soft = self.soft(x)
        return (2.0 * codes / (2 ** (self.bits - shift) - 1) - 1.0).to(x.dtype) + (soft - soft.detach())


def wrap(quantizer: Quantizer | Unquantized, loop: str) -> Quantizer | Unquantized:
    """The quantizer as one of :data:`LOOPS` or any-bit; "plain" leaves it."""
    if loop == "plain":
        return quantizer
    if not isinstance(quantizer, GammaQuantizer):
        raise TypeError(f"{loop} is tried with the γ quantizer only")
    return AnyBitQuantizer(quantizer) if loop == ANY_BIT else LoopQuantizer(quantizer, loop)
