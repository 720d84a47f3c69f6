"""The estimate of the rate: its formula, against real entropies, and that training can push it down."""

import math

import numpy as np
import pytest
import torch

from quantization.gamma import GammaQuantizer
from quantization.gamma_image import ImageQuantizer
from quantization.plane_coder import encode
from quantization.rate import bits_per_photosite, bits_per_sample, geometric_entropy

torch.set_num_threads(1)


@pytest.mark.parametrize("theta", [0.01, 0.1, 0.5, 0.9])
def test_the_entropy_is_that_of_the_distribution(theta):
    d = np.arange(-400, 401)
    p = (1 - theta) / (1 + theta) * theta ** np.abs(d)
    assert p.sum() == pytest.approx(1)
    mean = (p * np.abs(d)).sum()
    entropy = -(p * np.log2(np.maximum(p, 1e-300))).sum()
    assert geometric_entropy(torch.tensor(mean, dtype=torch.float64)).item() == pytest.approx(entropy, abs=1e-6)


def walk(scale: float) -> torch.Tensor:
    """``[32, 100, 1]``: a slow swing with noise."""
    t = torch.arange(100) / 50
    phase = 2 * math.pi * torch.rand(32, 1, generator=torch.Generator().manual_seed(0))
    noise = 0.02 * torch.randn(32, 100, generator=torch.Generator().manual_seed(1))
    return (scale * torch.sin(2 * math.pi * t + phase) + noise)[..., None]


@pytest.mark.parametrize("scale", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("bits", [2, 4])
def test_the_estimate_is_near_the_entropy_of_the_codes(scale, bits):
    curve = GammaQuantizer([1.0], bits=bits)
    codes = curve.codes(walk(scale))[..., 0].numpy()
    joint = np.zeros((2**bits, 2**bits))
    np.add.at(joint, (codes[:, :-1], codes[:, 1:]), 1)
    share = joint / joint.sum()
    given = share / np.maximum(share.sum(axis=1, keepdims=True), 1e-12)
    entropy = -(share[share > 0] * np.log2(given[share > 0])).sum()
    estimate = bits_per_sample(curve, walk(scale)).item()
    assert 0.6 * entropy < estimate < 1.8 * entropy + 0.05


def test_a_wider_range_costs_less_and_the_gradient_knows():
    x = walk(0.5)
    curve = GammaQuantizer([1.0], bits=4)
    before = bits_per_sample(curve, x)
    before.backward()
    assert curve.scale_raw.grad.item() < 0
    optimizer = torch.optim.Adam(curve.parameters(), lr=0.03)
    for _ in range(60):
        optimizer.zero_grad()
        bits_per_sample(curve, x).backward()
        optimizer.step()
    assert bits_per_sample(curve, x).item() < 0.6 * before.item()


def test_a_signal_that_never_moves_has_a_finite_gradient():
    curve = GammaQuantizer([1.0], bits=4)
    bits = bits_per_sample(curve, torch.zeros(2, 10, 1))
    bits.backward()
    assert 0 <= bits.item() < 0.02
    assert all(bool(torch.isfinite(p.grad).all()) for p in curve.parameters())


def frames(noise: float) -> torch.Tensor:
    """``[3, 4, 60, 80]``: slopes of light with noise."""
    rng = np.random.default_rng(0)
    slope = np.linspace(0.02, 0.3, 80) * np.linspace(0.3, 1.0, 60)[:, None]
    return torch.from_numpy(slope + noise * rng.standard_normal((3, 4, 60, 80)))


def coded_bits(curve: ImageQuantizer, planes: torch.Tensor) -> float:
    """What the coder of frames takes."""
    sizes = []
    for red, first, second, blue in curve.codes(planes).numpy().astype(np.uint8):
        mosaic = np.empty((120, 160), dtype=np.uint8)
        mosaic[::2, ::2], mosaic[::2, 1::2], mosaic[1::2, ::2], mosaic[1::2, 1::2] = red, first, second, blue
        data = encode(mosaic, curve.bits, mosaic.size)
        assert data is not None
        sizes.append(8 * len(data) / mosaic.size)
    return float(np.mean(sizes))


@pytest.mark.parametrize("noise", [0.005, 0.05])
@pytest.mark.parametrize("bits", [2, 4])
def test_the_estimate_of_frames_is_above_what_they_take_but_not_far(noise, bits):
    """The coder knows more of the neighbourhood than the estimate, the more so the less noise there is."""
    curve = ImageQuantizer(bits, gamma=[0.5] * 3, white=[0.4] * 3)
    coded = coded_bits(curve, frames(noise))
    assert coded < bits_per_photosite(curve, frames(noise)).item() < 2.2 * coded


def test_a_wider_range_of_light_costs_less_and_the_gradient_knows():
    planes = frames(0.02)
    curve = ImageQuantizer(4, gamma=[0.5] * 3, white=[0.3] * 3)
    before = coded_bits(curve, planes)
    bits_per_photosite(curve, planes).backward()
    assert (curve.range_raw.grad < 0).all()
    optimizer = torch.optim.Adam(curve.parameters(), lr=0.03)
    for _ in range(30):
        optimizer.zero_grad()
        bits_per_photosite(curve, planes).backward()
        optimizer.step()
    assert coded_bits(curve, planes) < 0.8 * before
