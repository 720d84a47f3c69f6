"""The network that the field compares with: DeepConvLSTM with one recurrent layer (about 375 k parameters).

Ordóñez and Roggen: Deep Convolutional and LSTM Recurrent Neural Networks for Multimodal Wearable Activity Recognition,
Sensors 16(1):115, 2016. One LSTM in place of two: Bock, Hölzemann, Moeller, Van Laerhoven, ISWC 2021, arXiv 2108.00702.
The LSTM takes every channel's features, so the size goes with the channels: 375 k at six, 277 k at three.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

from models.har.base import HarConfig, HarNetwork

_LAYERS = 4
_FILTERS = 64
_HIDDEN = 128
MAX_KERNEL: Final = 9


def kernel_for(window: int) -> int:
    """Taps of every convolution for a window of T samples.

    Without padding each convolution takes ``kernel - 1`` samples off the window, and all four together may take two
    thirds of it. This gives the 5 taps of the first paper at its 24 samples, and 9 from 48 samples up.
    """
    return min(MAX_KERNEL, 1 + window // 6)


class DeepConvLstm(HarNetwork):
    """Four convolutions over time, the same for each channel, and an LSTM over all channels' features."""

    def __init__(self, config: HarConfig) -> None:
        super().__init__()
        self.config = config
        kernel = kernel_for(config.window)
        self.norm = nn.BatchNorm1d(config.channels)
        layers: list[nn.Module] = []
        for layer in range(_LAYERS):
            layers += [nn.Conv1d(_FILTERS if layer else 1, _FILTERS, kernel), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.lstm = nn.LSTM(config.channels * _FILTERS, _HIDDEN, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(_HIDDEN, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, C]`` to logits ``[B, K]``."""
        batch, _, channels = x.shape
        z = self.norm(x.transpose(1, 2)).flatten(0, 1).unsqueeze(1)  # [B·C, 1, T]
        z = self.convolutions(z).unflatten(0, (batch, channels))  # [B, C, 64, t], t = T - 4 (kernel - 1)
        steps = z.permute(0, 3, 1, 2).flatten(2)  # [B, t, C·64]
        _, (last, _) = self.lstm(steps)  # [1, B, 128]
        return self.head(self.dropout(last[0]))
