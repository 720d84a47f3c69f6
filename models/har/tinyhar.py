"""A network that looks at every channel alone before it looks at all of them, after TinyHAR (about 70 k parameters).

Zhou et al.: TinyHAR, ISWC 2022, doi 10.1145/3544794.3558467. The same temporal
convolutions for each channel; attention across the channels of one moment; fusion; an LSTM; attention over time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.har.base import HarConfig, HarNetwork

_FILTERS = 32
_HEADS = 4
_HIDDEN = 2 * _FILTERS


class TinyHar(HarNetwork):
    """Convolutions per channel, attention across channels, an LSTM, attention over time."""

    def __init__(self, config: HarConfig) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.BatchNorm1d(config.channels)
        self.temporal = nn.Sequential(
            _block(1, stride=1),  # [B·C, 32, T]
            _block(_FILTERS, stride=2),  # [B·C, 32, T/2]
            _block(_FILTERS, stride=1),
            _block(_FILTERS, stride=2),  # [B·C, 32, T/4]
        )
        self.across = nn.MultiheadAttention(_FILTERS, _HEADS, batch_first=True)
        self.across_norm = nn.LayerNorm(_FILTERS)
        # Attention does not know which channel is which; the fusion has weights of its own for each.
        self.fusion = nn.Sequential(nn.Linear(config.channels * _FILTERS, _HIDDEN), nn.ReLU())
        self.lstm = nn.LSTM(_HIDDEN, _HIDDEN, batch_first=True)
        self.score = nn.Sequential(nn.Linear(_HIDDEN, _HIDDEN), nn.Tanh(), nn.Linear(_HIDDEN, 1, bias=False))
        self.share = nn.Parameter(torch.ones(1))
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(_HIDDEN, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, C]`` to logits ``[B, K]``."""
        batch, _, channels = x.shape
        z = self.norm(x.transpose(1, 2)).flatten(0, 1).unsqueeze(1)  # [B·C, 1, T]
        z = self.temporal(z).unflatten(0, (batch, channels))  # [B, C, 32, T/4]
        z = z.permute(0, 3, 1, 2)  # [B, T/4, C, 32]
        moments = z.flatten(0, 1)  # [B·T/4, C, 32]
        moments = self.across_norm(moments + self.across(moments, moments, moments, need_weights=False)[0])
        fused = self.fusion(moments.flatten(1).unflatten(0, z.shape[:2]))  # [B, T/4, 64]
        states, _ = self.lstm(fused)  # [B, T/4, 64]
        weight = torch.softmax(self.score(states), dim=1)  # [B, T/4, 1]
        # The last state has seen the whole window; what stood out earlier is added to it.
        pooled = states[:, -1] + self.share * (weight * states).sum(dim=1)  # [B, 64]
        return self.head(self.dropout(pooled))


def _block(inputs: int, stride: int, kernel: int = 5) -> nn.Sequential:
    convolution = nn.Conv1d(inputs, _FILTERS, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm1d(_FILTERS), nn.ReLU())
