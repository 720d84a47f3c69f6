"""How many bits an entropy coder will need, as something that training can push down.

A coder that knows the previous code pays for changes. Over a window, a channel's code moves by ``m`` steps a sample on
average; of all distributions of a difference with that mean magnitude the two-sided geometric one has the largest
entropy, and codes of movement come close to it. With ``θ = (√(1 + m²) − 1) / m``::

    P(d) = (1 − θ) / (1 + θ) · θ^|d|,    E|d| = m,    H(m) = −log2((1 − θ) / (1 + θ)) − m · log2 θ

Taking ``m`` by window, not over all data, is what a coder does whose context says whether the wearer moves. For frames
``m`` is that between neighbours of one colour, by plane. A context coder sees more neighbours and needs less, but what
makes one cheaper makes the other cheaper.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from quantization.gamma import LearnedQuantizer

_LEAST: Final = 1e-3
"""Steps a sample below which movement costs as much as this: the slope of H grows without bound towards 0."""


def geometric_entropy(m: Tensor) -> Tensor:
    """H(m) in bits.

    >>> [round(h, 2) for h in geometric_entropy(torch.tensor([0.1, 1.0, 4.0])).tolist()]
    [0.58, 2.54, 4.45]
    """
    m = m.clamp_min(_LEAST)
    theta = (torch.sqrt(1 + m * m) - 1) / m
    return -torch.log2((1 - theta) / (1 + theta)) - m * torch.log2(theta)


def bits_per_sample(quantizer: LearnedQuantizer, x: Tensor) -> Tensor:
    """Estimated bits a sample and channel, a scalar with a gradient to the quantizer's parameters.

    Args:
        quantizer: whose codes are to be coded.
        x: ``[B, T, C]`` physical values, T >= 2.

    The value counts the codes' own steps. The gradient is that of the curve between the codes: how far a signal travels
    in steps is, over all phases to the thresholds, how many of them it crosses.
    """
    soft = quantizer.soft(x).diff(dim=1).abs().mean(dim=1)  # [B, C]
    hard = quantizer.codes(x).diff(dim=1).abs().to(soft.dtype).mean(dim=1)
    return _entropy(quantizer, soft, hard)


def bits_per_photosite(quantizer: LearnedQuantizer, planes: Tensor) -> Tensor:
    """Estimated bits a photosite, as :func:`bits_per_sample`.

    Args:
        quantizer: of images, whose codes are to be coded.
        planes: ``[B, 4, h, w]`` fractions of full scale, h, w >= 2.
    """

    def change(values: Tensor) -> Tensor:
        down, across = (values.diff(dim=dim).abs().mean(dim=(2, 3)) for dim in (2, 3))
        return (down + across) / 2  # [B, 4]

    soft = quantizer.soft(planes)
    return _entropy(quantizer, change(soft), change(quantizer.codes(planes).to(soft.dtype)))


def _entropy(quantizer: LearnedQuantizer, soft: Tensor, hard: Tensor) -> Tensor:
    """Of mean changes: ``hard`` in codes; ``soft`` in [-1, 1], for the gradient."""
    soft = soft * ((2**quantizer.bits - 1) / 2)
    return geometric_entropy(hard + (soft - soft.detach())).mean()
