"""A small transformer encoder on a convolutional stem (about 50 k parameters).

The recipe for small data of Hassani et al. 2021 (Compact Transformers, arXiv 2104.05704): convolutions make the tokens,
so that little has to be learned about what is next to what, and attention pools them in place of a class token.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.har.base import HarConfig, HarNetwork

_WIDTH = 48
_HEADS = 4
_LAYERS = 2
_WAVELENGTH = 1000.0
# Longest wavelength of the position code, tokens: about the longest window that a network may be built for.


class Attention(HarNetwork):
    """Two convolutions, two encoder layers, attention pooling."""

    positions: Tensor

    def __init__(self, config: HarConfig) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.BatchNorm1d(config.channels)
        self.stem = nn.Sequential(
            *_block(config.channels, 32),  # [B, 32, T/2]
            *_block(32, _WIDTH),  # [B, 48, T/4]
        )
        self.register_buffer("positions", _positions(math.ceil(config.window / 4)), persistent=False)
        self.layers = nn.Sequential(*(_Layer() for _ in range(_LAYERS)))
        self.last_norm = nn.LayerNorm(_WIDTH)
        self.score = nn.Linear(_WIDTH, 1, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(_WIDTH, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, C]`` to logits ``[B, K]``."""
        z = self.stem(self.norm(x.transpose(1, 2))).transpose(1, 2)  # [B, T/4, 48]
        z = self.last_norm(self.layers(z + self.positions))
        weight = torch.softmax(self.score(z), dim=1)  # [B, T/4, 1]
        return self.head(self.dropout((weight * z).sum(dim=1)))


class _Layer(nn.Module):
    """One encoder layer, normalised before each half: ``[B, t, 48]`` to the same.

    Normalised first, it trains without a warm-up of its own (Xiong et al. 2020, arXiv 2002.04745).
    """

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(_WIDTH)
        self.attention = nn.MultiheadAttention(_WIDTH, _HEADS, batch_first=True)
        self.mix = nn.Sequential(
            nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, 2 * _WIDTH), nn.GELU(), nn.Linear(2 * _WIDTH, _WIDTH)
        )

    def forward(self, z: Tensor) -> Tensor:
        tokens = self.attention_norm(z)
        z = z + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return z + self.mix(z)


def _block(inputs: int, outputs: int, kernel: int = 5) -> list[nn.Module]:
    convolution = nn.Conv1d(inputs, outputs, kernel, stride=2, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm1d(outputs), nn.ReLU()]


def _positions(tokens: int) -> Tensor:
    """``[tokens, 48]`` sines and cosines of the token's place (Vaswani et al. 2017, arXiv 1706.03762, section 3.5)."""
    place = torch.arange(tokens)[:, None]
    angle = place / _WAVELENGTH ** (torch.arange(0, _WIDTH, 2) / _WIDTH)  # [tokens, 24]
    return torch.cat([angle.sin(), angle.cos()], dim=1)
