"""A small convolutional network: four temporal convolutions and two global pools (about 50 k parameters)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.har.base import HarConfig, HarNetwork


class Cnn(HarNetwork):
    """Convolutions over time; mean and maximum over time; a linear classifier."""

    def __init__(self, config: HarConfig) -> None:
        super().__init__()
        self.config = config
        # Codes differ in spread between channels and quantizers; a normalised input is what makes one learning rate
        # serve 12 bits over the ADC's range and 4 bits over a learned one alike.
        self.norm = nn.BatchNorm1d(config.channels)
        self.blocks = nn.Sequential(
            _block(config.channels, 32, 5),  # [B, 32, 1, T]
            _block(32, 48, 5, pool=2),  # [B, 48, 1, T/2]
            _block(48, 64, 5),  # [B, 64, 1, T/2]
            _block(64, 64, 5, pool=2),  # [B, 64, 1, T/4]
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(2 * 64, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, C]`` to logits ``[B, K]``."""
        image = self.norm(x.transpose(1, 2)).unsqueeze(2).contiguous(memory_format=torch.channels_last)
        z = self.blocks(image).squeeze(2)  # [B, 64, T/4]
        pooled = torch.cat([z.mean(dim=2), z.amax(dim=2)], dim=1)  # [B, 128]
        return self.head(self.dropout(pooled))


class _Convolution(nn.Conv1d):
    """Over the time of ``[B, C, 1, T]``: channels last, which only images can have, train faster."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in nn.Conv1d
        padding = (0, self.kernel_size[0] // 2)
        return nn.functional.conv2d(input, self.weight.unsqueeze(2), padding=padding)


def _block(inputs: int, outputs: int, kernel: int, pool: int = 1) -> nn.Sequential:
    layers = [_Convolution(inputs, outputs, kernel, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    if pool > 1:
        layers.append(nn.MaxPool2d((1, pool)))
    return nn.Sequential(*layers)
