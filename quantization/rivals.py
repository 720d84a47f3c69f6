"""Learned quantizers that the γ curve is compared with, behind the same interface and with the same codebook.

- :class:`LsqQuantizer`: even steps, step and offset learned: LSQ (Esser et al. 2020, arXiv 1902.08153) with the offset
  of LSQ+ (Bhalgat et al. 2020, arXiv 2004.09576).
- :class:`ThresholdQuantizer`: every threshold free, in order: the nonuniform-to-uniform quantizer of N2UQ (Liu et al.
  2022, arXiv 2111.14826).

Both see physical values, and give the network evenly spaced inputs in [-1, 1], as the γ curve does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

import torch
from torch import Tensor, nn

from quantization.codebook import MAX_BITS
from quantization.errors import CodebookError
from quantization.gamma import LearnedQuantizer, relative_centre

_SEARCH: Final = 60
"""Ranges tried for LSQ's start, from 1/60 of the largest magnitude up."""


class LsqQuantizer(LearnedQuantizer):
    """Even steps with a learned step and a learned offset per channel.

    Args:
        values: ``[n, C]`` samples of the training data, physical units. Step and offset start where the mean squared
            error of these is least, as in LSQ+.
        bits: 1 to 8.

    Raises:
        CodebookError: bits out of range, or no values.
    """

    def __init__(self, values: Tensor, *, bits: int) -> None:
        super().__init__()
        _check(values, bits)
        self.bits = bits
        step, offset = _least_squares(values.to(torch.float64), 2**bits - 1)
        self.register_buffer("initial_step", step.float())
        self.step_raw = nn.Parameter(torch.zeros_like(step, dtype=torch.float32))
        self.offset_raw = nn.Parameter((offset / step).float())

    @property
    def step(self) -> Tensor:
        """``[C]`` physical units."""
        return torch.exp(self.step_raw) * cast("Tensor", self.initial_step)

    @property
    def offset(self) -> Tensor:
        """``[C]`` what code 0 stands for, physical units."""
        return self.offset_raw * cast("Tensor", self.initial_step)

    def thresholds(self) -> Tensor:
        """``[C, 2**bits - 1]`` float64."""
        return self._at(torch.arange(2**self.bits - 1, dtype=torch.float64) + 0.5)

    def levels(self) -> Tensor:
        """``[C, 2**bits]`` float64."""
        return self._at(torch.arange(2**self.bits, dtype=torch.float64))

    def _at(self, k: Tensor) -> Tensor:
        step, offset = self.step.detach().double(), self.offset.detach().double()
        return offset[:, None] + step[:, None] * k

    def soft(self, x: Tensor) -> Tensor:
        """The position between code 0 and the last, clipped, as [-1, 1]."""
        top = 2**self.bits - 1
        return 2 * ((x - self.offset) / self.step).clamp(0, top) / top - 1

    def forward(self, x: Tensor) -> Tensor:
        """Hard codes forward; backward, the gradient of the dequantized value ``offset + step · code``.

        That is what LSQ propagates: a clipped value still pulls at the step and the offset, an inner one pulls at the
        step with its rounding error.
        """
        codes = self.codes(x).to(x.dtype)
        top = 2**self.bits - 1
        position = ((x - self.offset) / self.step).clamp(0, top)
        rounded = position + (codes - position).detach()
        value = self.offset + self.step * rounded
        scale = 2 / (top * self.step.detach())
        return 2 * codes / top - 1 + scale * (value - value.detach())


class ThresholdQuantizer(LearnedQuantizer):
    """Every threshold is free; only their order is kept.

    Args:
        full_scale: ``C`` positive numbers, physical units: thresholds start evenly spaced over ± this.
        bits: 1 to 8.
        centre: about these, physical units; None = about 0.

    Raises:
        CodebookError: bits, full scales or centres out of range.
    """

    def __init__(self, full_scale: Sequence[float], *, bits: int, centre: Sequence[float] | None = None) -> None:
        super().__init__()
        scale = torch.tensor(full_scale, dtype=torch.float32)
        _check(scale[None], bits)
        if not bool((scale > 0).all()):
            raise CodebookError(f"full scales must be positive: {list(full_scale)}")
        self.bits = bits
        # With more than one bit a level, not an edge, lies at the centre, as in the γ curve: a sensor at rest is quiet.
        step = 2 * scale / (2**bits - 1)
        self.register_buffer("initial_step", step)
        self._middle = 2 ** (bits - 1) - 1
        self.middle_raw = nn.Parameter(relative_centre(centre, step) - (0.5 if bits > 1 else 0.0))
        self.width_raw = nn.Parameter(torch.zeros(len(scale), 2**bits - 2))

    def _edges(self) -> Tensor:
        """``[C, 2**bits - 1]``, differentiable."""
        step = cast("Tensor", self.initial_step)[:, None]
        middle = self.middle_raw[:, None] * step
        widths = torch.exp(self.width_raw) * step
        below, above = widths[:, : self._middle], widths[:, self._middle :]
        down = middle - below.flip(1).cumsum(1).flip(1)
        return torch.cat([down, middle, middle + above.cumsum(1)], dim=1)

    def thresholds(self) -> Tensor:
        """``[C, 2**bits - 1]`` float64."""
        return self._edges().detach().double()

    def levels(self) -> Tensor:
        """``[C, 2**bits]`` float64: the middles of the cells; the outer ones as wide as their neighbours."""
        edges = self.thresholds()
        first, last = self._outer(edges)
        return torch.cat([edges[:, :1] - first / 2, (edges[:, 1:] + edges[:, :-1]) / 2, edges[:, -1:] + last / 2], 1)

    def _outer(self, edges: Tensor) -> tuple[Tensor, Tensor]:
        """``[C, 1]`` widths of the two outer cells."""
        if edges.shape[1] == 1:
            width = cast("Tensor", self.initial_step)[:, None].to(edges.dtype)
            return width, width
        return edges[:, 1:2] - edges[:, :1], edges[:, -1:] - edges[:, -2:-1]

    def soft(self, x: Tensor) -> Tensor:
        """Linear from edge to edge (the generalised straight-through estimator of N2UQ), clipped, as [-1, 1]."""
        edges = self._edges()
        first, last = self._outer(edges)
        nodes = torch.cat([edges[:, :1] - first, edges, edges[:, -1:] + last], dim=1)  # [C, 2^b + 1]
        codes = self.codes(x).reshape(-1, x.shape[-1])  # [n, C]
        channel = torch.arange(x.shape[-1])
        low, high = nodes[channel, codes], nodes[channel, codes + 1]
        inside = ((x.reshape(codes.shape) - low) / (high - low)).clamp(0, 1)
        position = (codes + inside - 0.5).clamp(0, 2**self.bits - 1)
        return (2 * position / (2**self.bits - 1) - 1).reshape(x.shape)


def _check(values: Tensor, bits: int) -> None:
    if not 1 <= bits <= MAX_BITS:
        raise CodebookError(f"bits must be 1 to {MAX_BITS}, not {bits}")
    if values.numel() == 0 or not bool(torch.isfinite(values).all()):
        raise CodebookError("a quantizer starts from finite values, at least one")


def _least_squares(values: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Step and offset ``[C]`` with the least squared error among even ranges about the middle of the data."""
    middle = values.median(dim=0).values
    reach = (values - middle).abs().amax(dim=0).clamp_min(1e-3)
    best = torch.full_like(middle, float("inf"))
    chosen = reach.clone()
    for share in range(1, _SEARCH + 1):
        half = reach * share / _SEARCH
        step = 2 * half / top
        code = ((values - middle + half) / step).round().clamp(0, top)
        error = (values - (middle - half + code * step)).square().mean(dim=0)
        chosen = torch.where(error < best, half, chosen)
        best = torch.minimum(error, best)
    return 2 * chosen / top, middle - chosen
