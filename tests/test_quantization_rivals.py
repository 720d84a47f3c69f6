"""Learned quantizers beside the γ curve: the same promises, and each one's own gradient."""

import numpy as np
import pytest
import torch

from models.augment import adc
from quantization.baselines import lloyd_max
from quantization.codec import Encoder, network_input
from quantization.errors import CodebookError
from quantization.gamma import LearnedQuantizer
from quantization.imu import ACC
from quantization.rivals import LsqQuantizer, ThresholdQuantizer
from quantization.sensor import Sensor

torch.set_num_threads(1)
SENSOR = Sensor("p", ACC, 12, (0.004, 0.0039, 0.1), (2000, 2048, 1), signed=False)
KINDS = ("lsq", "thresholds")


def sample(seed: int = 0, n: int = 4000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, generator=generator) * torch.tensor([1.0, 2.0, 60.0]) + torch.tensor([1.0, 0.0, 100.0])


def made(kind: str, bits: int, *, shaken: bool = True) -> LearnedQuantizer:
    """A quantizer with parameters as training might leave them."""
    curve: LearnedQuantizer = (
        LsqQuantizer(sample(), bits=bits) if kind == "lsq" else ThresholdQuantizer([4.0, 6.0, 300.0], bits=bits)
    )
    generator = torch.Generator().manual_seed(bits)
    with torch.no_grad():
        for parameter in curve.parameters():
            parameter += 0.3 * shaken * torch.randn(parameter.shape, generator=generator)
    return curve


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", range(1, 9))
def test_training_device_and_thresholds_agree_on_every_count(kind, bits):
    curve = made(kind, bits)
    counts = np.repeat(SENSOR.all_counts()[:, None], 3, axis=1)
    physical = SENSOR.to_physical(counts)
    book = curve.codebook(ACC, 50.0)
    codes = Encoder(book, SENSOR).encode(counts)
    assert np.array_equal(curve.codes(torch.from_numpy(physical)).numpy(), codes)
    seen = curve(adc(torch.from_numpy(physical).float(), SENSOR))
    assert np.allclose(seen.detach().numpy(), network_input(codes, bits), atol=1e-6)
    assert np.array_equal(book.encode_physical(book.levels.T), np.repeat(np.arange(2**bits)[:, None], 3, axis=1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_every_parameter_learns(kind, bits):
    curve = made(kind, bits)
    x = sample(1)
    (curve(x) * torch.cos(x)).sum().backward()
    for name, parameter in curve.named_parameters():
        if parameter.numel():
            assert parameter.grad is not None, name
            assert bool(torch.isfinite(parameter.grad).all()), name
            assert bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_smooth_curve_rises_from_end_to_end_and_rounds_to_the_codes(kind):
    curve = made(kind, 3)
    edges = curve.thresholds()
    low, high = edges[:, 0] - 5 * (edges[:, -1] - edges[:, 0]), edges[:, -1] + 5 * (edges[:, -1] - edges[:, 0])
    x = (low + (high - low) * torch.linspace(0, 1, 5001, dtype=torch.float64)[:, None]).float()
    soft = curve.soft(x).detach()
    assert bool((soft.diff(dim=0) >= 0).all())
    assert torch.equal(soft[0], torch.full((3,), -1.0))
    assert torch.equal(soft[-1], torch.full((3,), 1.0))
    off = (soft + 1) * 3.5 - curve.codes(x)
    assert float(off.abs().max()) < 0.5001


def test_lsq_starts_where_the_error_is_least():
    x = sample()
    curve = LsqQuantizer(x, bits=3)

    def error(step: torch.Tensor) -> torch.Tensor:
        middle = x.median(dim=0).values
        low = middle - 3.5 * step
        code = ((x - low) / step).round().clamp(0, 7)
        return (x - low - code * step).square().mean(dim=0)

    best = error(curve.step.detach())
    for factor in (0.7, 0.85, 1.2, 1.5):
        assert bool((error(curve.step.detach() * factor) > best).all())


def test_lsq_has_the_published_gradient():
    """Of the dequantized value: rounding error inside, the end code outside, for the step; 0 and 1 for the offset."""
    curve = LsqQuantizer(torch.tensor([[-1.0], [1.0]]), bits=2)
    step, offset = curve.step.item(), curve.offset.item()
    for position in (-3.0, 0.3, 1.2, 2.6, 9.0):
        curve.zero_grad()
        curve(torch.tensor([[offset + position * step]])).sum().backward()
        inside = 0 < position < 3
        by_step = (round(position) - position) if inside else (0.0 if position < 0 else 3.0)
        assert curve.step_raw.grad.item() == pytest.approx(by_step * 2 / 3, abs=1e-4)
        assert curve.offset_raw.grad.item() == pytest.approx(0.0 if inside else 2 / 3, abs=1e-4)


def test_thresholds_stay_in_order_whatever_training_does():
    curve = ThresholdQuantizer([1.0], bits=4)
    with torch.no_grad():
        curve.width_raw += 5 * torch.randn(curve.width_raw.shape, generator=torch.Generator().manual_seed(0))
    assert bool((curve.thresholds().diff(dim=1) > 0).all())


@pytest.mark.parametrize("bits", range(1, 9))
def test_lloyd_max_is_a_fixed_point_and_no_worse_than_even_steps(bits):
    values = np.random.default_rng(0).laplace(size=(3000, 1))
    book = lloyd_max(("acc_x",), bits, 50.0, values)
    codes = book.encode_physical(values)
    for k in np.unique(codes):
        assert book.levels[0, k] == pytest.approx(values[codes == k].mean(), abs=2e-2)
    reach = np.abs(values).max()
    step = 2 * reach / 2**bits
    even = (np.floor(values / step) + 0.5) * step
    assert np.square(book.decode(codes) - values).mean() < np.square(even - values).mean() + 1e-12


def test_lloyd_max_of_a_signal_at_rest():
    book = lloyd_max(("acc_x",), 2, 50.0, np.zeros((10, 1)))
    assert book.levels.tolist() == [[0.0] * 4]


@pytest.mark.parametrize(
    "make",
    [
        lambda: LsqQuantizer(torch.zeros(0, 3), bits=4),
        lambda: LsqQuantizer(torch.tensor([[float("nan")]]), bits=4),
        lambda: LsqQuantizer(sample(), bits=9),
        lambda: ThresholdQuantizer([0.0], bits=4),
        lambda: ThresholdQuantizer([1.0], bits=0),
    ],
)
def test_impossible_quantizers(make):
    with pytest.raises(CodebookError):
        make()
