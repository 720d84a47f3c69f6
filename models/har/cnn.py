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
            _block(config.channels, 32, 5),  # [B, 32, T]
            _block(32, 48, 5, pool=2),  # [B, 48, T/2]
            _block(48, 64, 5),  # [B, 64, T/2]
            _block(64, 64, 5, pool=2),  # [B, 64, T/4]
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(2 * 64, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, C]`` to logits ``[B, K]``."""
        z = self.blocks(self.norm(x.transpose(1, 2)))  # [B, 64, T/4]
        pooled = torch.cat([z.mean(dim=2), z.amax(dim=2)], dim=1)  # [B, 128]
        return self.head(self.dropout(pooled))


def _block(inputs: int, outputs: int, kernel: int, pool: int = 1) -> nn.Sequential:
    layers = [nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
    if pool > 1:
        layers.append(nn.MaxPool1d(pool))
    return nn.Sequential(*layers)
