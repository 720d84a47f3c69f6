"""A network for the smallest gateways, after the idea of TinierHAR (Bian et al. 2025, arXiv 2507.07949).

Depthwise separable convolutions with residual connections, one bidirectional GRU, attention over time; below 10 k
parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.har.base import HarConfig, HarNetwork

_WIDTH = 24
_HIDDEN = 16


class Tinier(HarNetwork):
    """Separable convolutions, a GRU in both directions, attention pooling."""

    def __init__(self, config: HarConfig) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.BatchNorm1d(config.channels)
        self.stem = _Separable(config.channels, _WIDTH)
        self.blocks = nn.ModuleList([_Separable(_WIDTH, _WIDTH) for _ in range(3)])
        self.pool = nn.MaxPool1d(2)
        self.gru = nn.GRU(_WIDTH, _HIDDEN, batch_first=True, bidirectional=True)
        self.attention = nn.Linear(2 * _HIDDEN, 1)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(2 * _HIDDEN, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, C]`` to logits ``[B, K]``."""
        z = self.pool(self.stem(self.norm(x.transpose(1, 2))))  # [B, 24, T/2]
        for index, block in enumerate(self.blocks):
            z = z + block(z)
            if index == 0:
                z = self.pool(z)  # [B, 24, T/4]
        states, _ = self.gru(z.transpose(1, 2))  # [B, T/4, 32]
        weight = torch.softmax(self.attention(states), dim=1)  # [B, T/4, 1]
        return self.head(self.dropout((weight * states).sum(dim=1)))


class _Separable(nn.Module):
    """Depthwise over time, pointwise over channels, normalised: ``[B, in, T]`` to ``[B, out, T]``."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 5) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(inputs, inputs, kernel, padding=kernel // 2, groups=inputs, bias=False)
        self.pointwise = nn.Conv1d(inputs, outputs, 1, bias=False)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.pointwise(self.depthwise(x))))
