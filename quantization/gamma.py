"""The differentiable γ quantizer: the curve that is trained together with the recognition network.

After γ-Quant (Fatima et al. 2025, arXiv 2509.22448). Per channel, with centre μ, full scale s and exponent γ::

    u = (x − μ) / s
    y = sign(u) ((|u| + ε)^γ − ε^γ) / ((1 + ε)^γ − ε^γ),    clipped to [−1, 1]
    k = round of y to 2^b even steps,    the network sees 2k / (2^b − 1) − 1

The paper's own form is kept as ``variant="paper"``: ``y = sign(x − μ)(|x − μ| + ε)^γ`` on the ADC's fixed full scale.
It jumps by 2 ε^γ at μ (0.13 at γ = 0.4), where the form above is continuous with y(±1) = ±1, and it cannot narrow its
range.

The forward pass uses the thresholds that the curve implies (its inverse at the steps' edges), in float64: the very
numbers that go into the codebook. A device's integers and the training graph therefore agree on every count.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final, Literal, cast

import torch
from torch import Tensor, nn

from quantization.codebook import MAX_BITS, Codebook
from quantization.errors import CodebookError

EPSILON: Final = 1e-3
"""ε of the paper: keeps the slope at μ finite for γ < 1."""
GAMMA_LIMIT: Final = 8.0
"""γ stays within 1/8 .. 8 through a smooth bound: unbounded, it has been seen to run off at 2 bits for good."""
INITIAL_GAMMA: Final = {"identity": 1.0, "s-shaped": 0.4}

Variant = Literal["ranged", "paper"]
Init = Literal["identity", "s-shaped"]


class Quantizer(nn.Module, ABC):
    """What every differentiable quantizer offers. Rows are channels; physical units."""

    bits: int

    @abstractmethod
    def thresholds(self) -> Tensor:
        """``[C, 2**bits - 1]`` float64, not falling along a row."""

    @abstractmethod
    def levels(self) -> Tensor:
        """``[C, 2**bits]`` float64, not falling along a row."""

    def codes(self, x: Tensor) -> Tensor:
        """``[..., C]`` physical values to int64 codes: how many thresholds are not above each value."""
        columns = x.detach().to(torch.float64).reshape(-1, x.shape[-1]).T.contiguous()
        found = torch.searchsorted(self.thresholds().detach(), columns, right=True)
        return found.T.reshape(x.shape)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., C]`` physical values to what the network sees, in [-1, 1], in the type of ``x``."""
        return (2.0 * self.codes(x) / (2**self.bits - 1) - 1.0).to(x.dtype)

    def codebook(self, channels: tuple[str, ...], rate_hz: float) -> Codebook:
        """Freeze the curve into what devices and gateways share."""
        return Codebook(
            channels,
            self.bits,
            rate_hz,
            thresholds=self.thresholds().detach().cpu().numpy().copy(),
            levels=self.levels().detach().cpu().numpy().copy(),
        )


class FixedQuantizer(Quantizer):
    """A codebook that does not learn: the baselines, and a curve that is already out in the field."""

    def __init__(self, codebook: Codebook) -> None:
        super().__init__()
        self.bits = codebook.bits
        self.register_buffer("_thresholds", torch.from_numpy(codebook.thresholds.copy()))
        self.register_buffer("_levels", torch.from_numpy(codebook.levels.copy()))

    def thresholds(self) -> Tensor:
        """``[C, 2**bits - 1]`` float64."""
        return cast("Tensor", self._thresholds)

    def levels(self) -> Tensor:
        """``[C, 2**bits]`` float64."""
        return cast("Tensor", self._levels)


class LearnedQuantizer(Quantizer):
    """A quantizer with parameters: hard codes forward, the gradient of its own smooth curve backward."""

    @abstractmethod
    def soft(self, x: Tensor) -> Tensor:
        """``[..., C]`` physical values to [-1, 1], differentiable: what :meth:`forward` would give without rounding."""

    def forward(self, x: Tensor) -> Tensor:
        """As :meth:`Quantizer.forward`; backward, the gradient of :meth:`soft` (straight-through over the rounding)."""
        soft = self.soft(x)
        return super().forward(x) + (soft - soft.detach())


class GammaQuantizer(LearnedQuantizer):
    """The learned curve: γ, μ and (``variant="ranged"``) the full scale of every channel.

    Args:
        full_scale: per channel, physical units. Where the range starts for "ranged" (take a high quantile of the data);
            where it stays for "paper" (the ADC's full scale).
        bits: 1 to 8.
        init: γ starts at 1 ("identity") or at 0.4 ("s-shaped").
        variant: "ranged", or "paper" for the published form.
        centre: where μ starts, per channel, physical units; None = 0, as published.

    Raises:
        CodebookError: bits, full scales or centres out of range.

    >>> curve = GammaQuantizer([8.0], bits=2)
    >>> [round(t, 3) for t in curve.thresholds()[0].tolist()]
    [-8.0, -2.667, 2.667]
    >>> [round(seen, 3) for seen in curve(torch.tensor([[0.0], [9.0]])).flatten().tolist()]
    [0.333, 1.0]
    """

    def __init__(
        self,
        full_scale: Sequence[float],
        *,
        bits: int,
        init: Init = "identity",
        variant: Variant = "ranged",
        centre: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= bits <= MAX_BITS:
            raise CodebookError(f"bits must be 1 to {MAX_BITS}, not {bits}")
        scale = torch.tensor(full_scale, dtype=torch.float32)
        if not bool((torch.isfinite(scale) & (scale > 0)).all()):
            raise CodebookError(f"full scales must be positive: {list(full_scale)}")
        self.bits = bits
        self.variant: Variant = variant
        self.register_buffer("initial_scale", scale)
        # All three live on a logarithmic or relative scale, so that one learning rate fits and none can reach a value
        # at which its gradient vanishes for good (a relu on γ dies at 0).
        limit = math.log(GAMMA_LIMIT)
        start = limit * math.atanh(math.log(INITIAL_GAMMA[init]) / limit)
        self.gamma_raw = nn.Parameter(torch.full_like(scale, start))
        self.centre_raw = nn.Parameter(relative_centre(centre, scale))
        self.scale_raw = nn.Parameter(torch.zeros_like(scale), requires_grad=variant == "ranged")

    @property
    def gamma(self) -> Tensor:
        """``[C]`` exponent, within 1/8 .. 8."""
        limit = math.log(GAMMA_LIMIT)
        return torch.exp(limit * torch.tanh(self.gamma_raw / limit))

    @property
    def centre(self) -> Tensor:
        """``[C]`` μ, physical units."""
        return self.centre_raw * cast("Tensor", self.initial_scale)

    @property
    def full_scale(self) -> Tensor:
        """``[C]`` s, physical units."""
        return torch.exp(self.scale_raw) * cast("Tensor", self.initial_scale)

    @property
    def _shift(self) -> int:
        # An even number of codes has either an edge or a level at the centre. A sensor at rest sits at its centre: on
        # an edge, noise alone makes it chatter between two codes (and costs an entropy coder a bit a sample). So the
        # codes are moved by half a step; at 1 bit the only edge must stay where it splits the range.
        return 1 if self.variant == "ranged" and self.bits > 1 else 0

    def curve(self, x: Tensor) -> Tensor:
        """``[..., C]`` physical values to y, not clipped."""
        return self._companded((x - self.centre) / self.full_scale)

    def _companded(self, u: Tensor) -> Tensor:
        gamma = self.gamma
        raised = (u.abs() + EPSILON) ** gamma
        if self.variant == "paper":
            return torch.sign(u) * raised
        floor = EPSILON**gamma
        return torch.sign(u) * (raised - floor) / ((1 + EPSILON) ** gamma - floor)

    def _inverse(self, y: Tensor) -> Tensor:
        """``[n]`` values of y to ``[C, n]`` physical values, float64."""
        gamma, centre, scale = (
            value.detach().to(torch.float64)[:, None] for value in (self.gamma, self.centre, self.full_scale)
        )
        magnitude = y.abs()[None, :]
        if self.variant == "ranged":
            floor = EPSILON**gamma
            magnitude = magnitude * ((1 + EPSILON) ** gamma - floor) + floor
        # In the paper's form no x gives |y| below ε^γ: all such edges fall together at μ.
        distance = (magnitude ** (1 / gamma) - EPSILON).clamp_min(0)
        return centre + scale * torch.sign(y)[None, :] * distance

    def thresholds(self) -> Tensor:
        """``[C, 2**bits - 1]`` float64: the curve's inverse half-way between neighbouring codes."""
        k = torch.arange(1, 2**self.bits, dtype=torch.float64)
        return self._inverse((2 * k - 1 - self._shift) / (2**self.bits - 1) - 1)

    def levels(self) -> Tensor:
        """``[C, 2**bits]`` float64: the curve's inverse at each code."""
        k = torch.arange(2**self.bits, dtype=torch.float64)
        return self._inverse((2 * k - self._shift) / (2**self.bits - 1) - 1)

    def soft(self, x: Tensor) -> Tensor:
        """The companded value y. "ranged" stops at ± 1; "paper" passes gradients through the clip as published."""
        u = (x - self.centre) / self.full_scale
        if self.variant == "ranged":
            # The paper passes gradients straight through the clip as well. With a range that can move this feeds on
            # itself: clipped values push the range inwards, which clips more, until one code is left.
            # As y(±1) = ±1, u may be clipped in place of y; its power then cannot overflow and make gradients NaN.
            u = u.clamp(-1, 1)
        return self._companded(u)


def relative_centre(centre: Sequence[float] | None, scale: Tensor) -> Tensor:
    """``[C]`` centres as shares of ``scale``; zeros for None. :class:`CodebookError` if they are not finite numbers."""
    if centre is None:
        return torch.zeros_like(scale)
    given = torch.tensor(centre, dtype=torch.float32)
    if given.shape != scale.shape or not bool(torch.isfinite(given).all()):
        raise CodebookError(f"a centre for each of {len(scale)} channels, finite: not {list(centre)}")
    return given / scale


class Unquantized(nn.Module):
    """The reference without a quantizer: the ADC's own counts as a share of its full scale.

    Args:
        full_scale: per channel, physical units.
    """

    def __init__(self, full_scale: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("full_scale", torch.tensor(full_scale, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., C]`` physical values to [-1, 1]."""
        return (x / cast("Tensor", self.full_scale)).clamp(-1, 1)
