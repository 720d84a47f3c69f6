"""The learned curve: one and the same as the device's integers, the published formula, and a gradient that lasts."""

import math

import numpy as np
import pytest
import torch

from models.augment import adc
from quantization.baselines import mu_law
from quantization.codec import Encoder, network_input
from quantization.errors import CodebookError
from quantization.gamma import EPSILON, GAMMA_LIMIT, FixedQuantizer, GammaQuantizer, Unquantized
from quantization.imu import ACC
from quantization.sensor import Sensor

torch.set_num_threads(1)

SENSORS = {
    "signed8": Sensor("p", ACC, 8, (8 / 128,) * 3, (0, 0, 0)),
    "signed12": Sensor("p", ACC, 12, (8 / 2048,) * 3, (0, 0, 0)),
    "signed16": Sensor("p", ACC, 16, (8 / 32768,) * 3, (0, 0, 0)),
    "signed12-decimal": Sensor("p", ACC, 12, (0.004, 0.0039, 1 / 256.0), (0, 3, -7)),
    "signed16-decimal": Sensor("p", ACC, 16, (0.000244, 0.061e-2, 0.0175), (0, 0, 100)),
    "unsigned12": Sensor("p", ACC, 12, (0.004, 0.0039, 0.1), (2000, 2048, 1), signed=False),
    "unsigned8": Sensor("p", ACC, 8, (0.07, 0.063, 1 / 3), (128, 100, 0), signed=False),
}


def learned(variant: str, init: str, bits: int, full_scale: list[float], seed: int) -> GammaQuantizer:
    """A curve with parameters as training might leave them."""
    curve = GammaQuantizer(full_scale, bits=bits, init=init, variant=variant)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        curve.gamma_raw += torch.randn(len(full_scale), generator=generator)
        curve.centre_raw += 0.3 * torch.randn(len(full_scale), generator=generator)
        if variant == "ranged":
            curve.scale_raw += 0.7 * torch.randn(len(full_scale), generator=generator)
    return curve


@pytest.mark.parametrize("variant", ["ranged", "paper"])
@pytest.mark.parametrize("name", SENSORS)
def test_training_device_and_thresholds_agree_on_every_count(name, variant):
    sensor = SENSORS[name]
    counts = np.repeat(sensor.all_counts()[:, None], 3, axis=1)
    physical = sensor.to_physical(counts)
    full_scale = [max(abs(column[0]), abs(column[-1])) for column in physical.T.tolist()]
    some = np.random.default_rng(0).choice(len(counts), 60, replace=False)
    for bits in range(1, 9):
        for seed, init in enumerate(("identity", "s-shaped")):
            curves = [learned(variant, init, bits, full_scale, 100 * bits + seed)]
            if not seed:
                curves.append(GammaQuantizer(full_scale, bits=bits, init=init, variant=variant))
            for curve in curves:
                book = curve.codebook(ACC, 50.0)
                encoder = Encoder(book, sensor)
                codes = encoder.encode(counts)
                assert np.array_equal(curve.codes(torch.from_numpy(physical)).numpy(), codes)
                assert np.array_equal(book.encode_physical(physical), codes)
                edges = book.thresholds_for(sensor).tolist()
                for index in some:
                    naive = [sum(counts[index, c] >= edge for edge in edges[c]) for c in range(3)]
                    assert codes[index].tolist() == naive


@pytest.mark.parametrize("variant", ["ranged", "paper"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_the_network_sees_in_training_what_it_sees_at_a_gateway(bits, variant):
    """Physical values through the ADC and the training graph in float32; through counts and codes as they travel."""
    sensor = SENSORS["unsigned12"]
    curve = learned(variant, "identity", bits, [8.0, 8.0, 100.0], bits)
    values = torch.randn(4, 500, 3, generator=torch.Generator().manual_seed(bits)) * torch.tensor([1.0, 3.0, 50.0])
    counts = sensor.to_counts(values.reshape(-1, 3).numpy())
    codes = Encoder(curve.codebook(ACC, 50.0), sensor).encode(counts)
    for module in (curve.train(), curve.eval(), FixedQuantizer(curve.codebook(ACC, 50.0))):
        seen = module(adc(values, sensor))
        assert seen.dtype == torch.float32
        assert np.array_equal(seen.detach().reshape(-1, 3).numpy(), network_input(codes, bits))
    possible = {float(np.float32(k) * np.float32(2) / np.float32(2**bits - 1) - np.float32(1)) for k in range(2**bits)}
    assert set(seen.unique().tolist()) <= possible


@pytest.mark.parametrize("bits", range(1, 9))
def test_the_published_variant_is_the_published_formula(bits):
    """γ-Quant (arXiv 2509.22448), written out: x over the ADC's full scale, y, clip, round; ties aside."""
    for seed in range(6):
        curve = learned("paper", "s-shaped" if seed % 2 else "identity", bits, [8.0], seed)
        gamma, centre = curve.gamma.double().item(), curve.centre.double().item() / 8.0
        values = np.random.default_rng(seed).uniform(-1, 1, 400)
        codes = curve.codes(torch.tensor(values[:, None] * 8.0, dtype=torch.float64)).ravel().tolist()
        compared = 0
        for x, code in zip(values.tolist(), codes, strict=True):
            y = math.copysign((abs(x - centre) + 1e-3) ** gamma, x - centre)
            step = (min(1.0, max(-1.0, y)) + 1) * (2**bits - 1) / 2
            if abs(step % 1 - 0.5) < 1e-9:
                continue
            assert code == round(step)
            compared += 1
        assert compared > 390


def test_the_published_variant_jumps_at_its_centre_and_the_ranged_one_does_not():
    for gamma_raw in (-1.2, 0.0, 0.7):
        for variant in ("paper", "ranged"):
            curve = GammaQuantizer([8.0], bits=4, variant=variant)
            with torch.no_grad():
                curve.gamma_raw += gamma_raw
                curve.centre_raw += 0.125
            left, right = curve.curve(torch.tensor([[1 - 1e-6], [1 + 1e-6]])).flatten().tolist()
            if variant == "paper":
                assert right - left == pytest.approx(2 * EPSILON ** curve.gamma.item(), rel=0.01)
            else:
                assert 0 < right - left < 1e-4


def test_the_jump_at_the_papers_own_start():
    curve = GammaQuantizer([1.0], bits=4, init="s-shaped", variant="paper")
    left, right = curve.curve(torch.tensor([[-1e-7], [1e-7]])).flatten().tolist()
    assert right - left == pytest.approx(0.126, abs=0.001)
    assert curve.gamma.item() == pytest.approx(0.4)


@pytest.mark.parametrize("seed", range(8))
def test_the_ranged_curve_is_monotone_and_ends_at_one(seed):
    curve = learned("ranged", "identity", 4, [8.0, 2000.0], seed)
    ends = torch.stack([curve.centre - curve.full_scale, curve.centre, curve.centre + curve.full_scale])
    assert torch.allclose(curve.curve(ends), torch.tensor([[-1.0] * 2, [0.0] * 2, [1.0] * 2]), atol=1e-4)
    x = curve.centre + curve.full_scale * torch.linspace(-1.5, 1.5, 1001)[:, None]
    assert bool((curve.curve(x).diff(dim=0) > 0).all())


@pytest.mark.parametrize("bits", range(1, 9))
def test_a_level_lies_in_its_own_cell(bits):
    for seed in range(4):
        book = learned("ranged", "s-shaped", bits, [8.0, 8.0, 2000.0], seed).codebook(ACC, 50.0)
        assert (np.diff(book.thresholds, axis=1) > 0).all(), "no cell is empty"
        codes = book.encode_physical(book.levels.T)
        assert np.array_equal(codes, np.repeat(np.arange(2**bits)[:, None], 3, axis=1))


def test_the_published_variant_leaves_cells_at_its_centre_empty():
    """No value gives |y| < ε^γ: the edges between fall together, as the codebook's layout allows."""
    book = GammaQuantizer([8.0], bits=8, init="s-shaped", variant="paper").codebook(("acc_x",), 50.0)
    assert (book.thresholds[0] == 0.0).sum() == 17  # |y| < 0.063 in steps of 2/255


@pytest.mark.parametrize("bits", range(2, 9))
def test_a_sensor_at_rest_sits_on_a_level_not_on_an_edge(bits):
    book = learned("ranged", "identity", bits, [8.0], 3).codebook(("acc_x",), 50.0)
    curve = learned("ranged", "identity", bits, [8.0], 3)
    centre = curve.centre.item()
    assert np.abs(book.levels - centre).min() < 1e-6
    assert np.abs(book.thresholds - centre).min() > 1e-5


def test_one_bit_splits_the_range_at_its_centre():
    assert GammaQuantizer([8.0], bits=1).thresholds().tolist() == [[0.0]]


@pytest.mark.parametrize("gamma", [-30.0, -6.0, -2.0, 0.0, 2.0, 6.0, 30.0])
def test_gamma_is_bounded_whatever_its_parameter(gamma):
    curve = GammaQuantizer([8.0], bits=4)
    with torch.no_grad():
        curve.gamma_raw.fill_(gamma)
    assert 1 / GAMMA_LIMIT * 0.9999 <= curve.gamma.item() <= GAMMA_LIMIT * 1.0001
    curve.codebook(("acc_x",), 50.0)


@pytest.mark.parametrize("gamma", [-8.0, -3.0, 0.0, 3.0, 8.0])
@pytest.mark.parametrize("centre", [-0.9, 0.0, 0.9])
@pytest.mark.parametrize("scale", [-5.0, 0.0, 5.0])
def test_no_parameter_can_die(gamma, centre, scale):
    """Wherever training has gone, values around the centre pull all three parameters."""
    curve = GammaQuantizer([8.0], bits=4)
    with torch.no_grad():
        for parameter, value in ((curve.gamma_raw, gamma), (curve.centre_raw, centre), (curve.scale_raw, scale)):
            parameter.fill_(value)
    u = torch.linspace(-1.7, 1.7, 2000)[:, None]
    x = curve.centre.detach() + curve.full_scale.detach() * u
    (curve(x) * torch.cos(5 * u + 1)).sum().backward()
    for name, parameter in curve.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert bool((parameter.grad.abs() > 1e-9).all()), name


@pytest.mark.parametrize("gamma", [-8.0, 8.0])
def test_values_far_outside_of_the_range_leave_gradients_finite(gamma):
    """Their power would overflow float32, and infinity times a gradient of zero is not a number."""
    curve = GammaQuantizer([1e-3], bits=4)
    with torch.no_grad():
        curve.gamma_raw.fill_(gamma)
    curve(torch.tensor([[-2000.0], [0.0003], [2000.0]])).sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) and bool((p.grad != 0).any()) for p in curve.parameters())


def test_gradient_is_that_of_the_curve_inside_and_none_outside():
    curve = learned("ranged", "s-shaped", 4, [8.0], 5)
    u = torch.tensor([[-1.5], [-0.5], [0.2], [0.9], [1.5]])
    x = (curve.centre + curve.full_scale * u).detach().requires_grad_()
    curve(x).sum().backward()
    hard = x.grad.clone()
    x.grad = None
    curve.curve(x).sum().backward()
    assert torch.allclose(hard[1:4], x.grad[1:4], rtol=1e-4)
    assert hard[[0, 4]].tolist() == [[0.0], [0.0]]


def test_the_published_variant_passes_gradients_through_its_clip_and_has_no_range_to_learn():
    curve = GammaQuantizer([8.0], bits=4, variant="paper")
    with torch.no_grad():
        curve.centre_raw += 0.5
    x = torch.tensor([[-7.9]], requires_grad=True)
    assert curve(x).item() == -1.0
    curve(x).sum().backward()
    assert x.grad.item() > 0
    assert {name for name, p in curve.named_parameters() if p.requires_grad} == {"gamma_raw", "centre_raw"}


@pytest.mark.parametrize("init", ["identity", "s-shaped"])
def test_training_finds_the_range_and_does_not_collapse(init):
    """What is to be told apart lies within ±0.5; the range starts eight times as wide."""
    torch.manual_seed(0)
    x = 0.5 * torch.randn(512, 1)
    truth = torch.bucketize(x[:, 0], torch.tensor([-0.5, -0.15, 0.15, 0.5]))
    curve = GammaQuantizer([4.0], bits=3, init=init)
    network = torch.nn.Sequential(torch.nn.Linear(1, 32), torch.nn.ReLU(), torch.nn.Linear(32, 5))
    groups = [{"params": network.parameters()}, {"params": curve.parameters(), "lr": 0.03}]
    optimizer = torch.optim.Adam(groups, lr=0.01)
    start, used = curve.gamma.item(), len(curve.codes(x).unique())
    for _ in range(250):
        loss = torch.nn.functional.cross_entropy(network(curve(x)), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert abs(curve.gamma.item() - start) > 0.05
    assert 0.4 < curve.full_scale.item() < 1.0
    assert len(curve.codes(x).unique()) > used
    assert (network(curve(x)).argmax(dim=1) == truth).float().mean().item() > 0.8


def test_a_fixed_quantizer_is_its_codebook():
    book = mu_law(ACC, 4, 50.0, [8.0] * 3)
    fixed = FixedQuantizer(book)
    assert fixed.codebook(ACC, 50.0) == book
    assert not list(fixed.parameters())
    values = np.random.default_rng(0).normal(size=(200, 3))
    assert np.array_equal(fixed.codes(torch.from_numpy(values)).numpy(), book.encode_physical(values))
    assert fixed(torch.zeros(0, 3)).shape == (0, 3)


def test_the_reference_only_scales():
    assert Unquantized([8.0, 2000.0])(torch.tensor([[4.0, -5000.0]])).tolist() == [[0.5, -1.0]]


@pytest.mark.parametrize(
    ("full_scale", "bits"), [([8.0], 0), ([8.0], 9), ([0.0], 4), ([-1.0], 4), ([float("nan")], 4), ([float("inf")], 4)]
)
def test_impossible_curves(full_scale, bits):
    with pytest.raises(CodebookError):
        GammaQuantizer(full_scale, bits=bits)
