"""Curves for RAW frames: training and cameras agree on every count, baselines are their formulas, nothing runs off."""

import math

import numpy as np
import pytest
import torch

from quantization.codebook import Codebook
from quantization.errors import CodebookError
from quantization.gamma import EPSILON, GAMMA_LIMIT
from quantization.gamma_image import (
    LEAST_GAMMA,
    FixedPlanes,
    ImageQuantizer,
    PaperQuantizer,
    PlaneQuantizer,
    UnquantizedPlanes,
    linear_image,
    log_image,
)
from quantization.raw import COLOURS, FRAME_RATE_HZ, CameraSensor, Cfa

torch.set_num_threads(1)

COUNTS = np.arange(4096, dtype=np.uint16)
LIGHT = COUNTS / 4095
SENSORS = [
    CameraSensor("plain", Cfa.RGGB),
    CameraSensor("blacks", Cfa.GRBG, 12, (60.0, 64.0, 66.5, 72.0), 3900.0),
    CameraSensor("dim", Cfa.BGGR, 12, (255.0, 256.0, 257.0, 258.0), 4095.0),
]


def learned(bits: int, seed: int) -> ImageQuantizer:
    """Curves with parameters as training might leave them."""
    generator = torch.Generator().manual_seed(seed)
    curve = ImageQuantizer(bits, gamma=[0.25, 0.5, 1.0], white=[0.3, 0.6, 1.0])
    with torch.no_grad():
        curve.gamma_raw += torch.randn(3, generator=generator)
        curve.black_raw += 0.05 * torch.randn(3, generator=generator)
        curve.range_raw += 0.5 * torch.randn(3, generator=generator)
    return curve


def paper(bits: int, gamma: float) -> PaperQuantizer:
    curve = PaperQuantizer(bits)
    with torch.no_grad():
        curve.gamma_raw.fill_(gamma)
    return curve


def of_kind(kind: str, bits: int) -> list[PlaneQuantizer]:
    match kind:
        case "linear":
            return [FixedPlanes(linear_image(bits))]
        case "log":
            return [FixedPlanes(log_image(bits))]
        case "paper":
            return [paper(bits, gamma) for gamma in (1.0, 0.4545, 0.13, 2.2, -3.0)]
        case _:
            curves = [learned(bits, seed) for seed in range(4)]
            return [*curves, FixedPlanes(curves[0].image_codebook())]


def all_light(sensor: CameraSensor) -> torch.Tensor:
    """``[1, 4, 1, 4096]``: every count of every plane."""
    planes = [sensor.to_light(COUNTS, position) for position in sensor.cfa.positions]
    return torch.from_numpy(np.stack(planes))[None, :, None]


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("kind", ["linear", "log", "paper", "ours"])
def test_training_and_cameras_agree_on_every_count(kind, bits):
    for curve in of_kind(kind, bits):
        book = curve.image_codebook()
        assert (book.channels, book.bits, book.rate_hz) == (COLOURS, bits, FRAME_RATE_HZ)
        for sensor in SENSORS:
            light, table = all_light(sensor), sensor.lookup(book)
            codes = curve.codes(light)[0, :, 0].numpy()
            for plane, position in enumerate(sensor.cfa.positions):
                assert np.array_equal(codes[plane], table[position])
            seen = curve(light)
            assert seen.dtype == torch.float32
            # Exactly what a gateway makes of the codes.
            assert np.array_equal(seen.detach()[0, :, 0].numpy(), 2 * codes.astype(np.float32) / (2**bits - 1) - 1)


def test_planes_go_by_their_colours_and_places():
    curve = FixedPlanes(
        Codebook(COLOURS, 1, 1.0, thresholds=np.array([[0.2], [0.4], [0.6]]), levels=np.array([[0.0, 1.0]] * 3))
    )
    x = torch.tensor([[0.1, 0.3], [0.5, 0.7]], dtype=torch.float64).expand(2, 4, 2, 2)
    expected = [[[0, 1], [1, 1]], [[0, 0], [1, 1]], [[0, 0], [1, 1]], [[0, 0], [0, 1]]]
    assert curve.codes(x).tolist() == [expected] * 2


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("kind", ["linear", "log", "paper", "ours"])
def test_every_code_can_be_reached_and_its_level_has_it(kind, bits):
    for curve in of_kind(kind, bits):
        book = curve.image_codebook()
        assert (np.diff(book.thresholds, axis=1) > 0).all()
        assert (np.diff(book.levels, axis=1) > 0).all()
        assert np.array_equal(book.encode_physical(book.levels.T), np.repeat(np.arange(2**bits)[:, None], 3, axis=1))


@pytest.mark.parametrize("kind", ["linear", "log", "paper", "ours"])
def test_a_code_begins_exactly_at_its_threshold(kind):
    """In float64: of float32, two in three of these would fall on one side."""
    for curve in of_kind(kind, 6):
        edges = curve.thresholds().detach()[[0, 1, 1, 2]]
        below = torch.nextafter(edges, torch.full_like(edges, -math.inf))
        expected = torch.arange(63).expand(4, -1)
        assert torch.equal(curve.codes(below[None, :, None])[0, :, 0], expected)
        assert torch.equal(curve.codes(edges[None, :, None])[0, :, 0], expected + 1)


@pytest.mark.parametrize("seed", range(6))
def test_at_the_ends_of_the_range_are_the_first_and_the_last_code(seed):
    curve = learned(4, seed)
    black, white = curve.black.double(), (curve.black + curve.range).double()
    shares = torch.tensor([-1e-3, 1e-6, 1 - 1e-4, 1.5], dtype=torch.float64)
    x = black[:, None] + (white - black)[:, None] * shares
    codes = curve.codes(x[[0, 1, 1, 2]][None, :, None])[0, :, 0]
    assert codes.tolist() == [[0, 0, 15, 15]] * 4


@pytest.mark.parametrize("bits", range(1, 9))
def test_the_learned_curve_is_its_formula(bits):
    """Written out in plain Python; ties aside."""
    for seed in range(3):
        curve = learned(bits, seed)
        parameters = [v.double().tolist() for v in (curve.gamma, curve.black, curve.range)]
        x = np.random.default_rng(seed).uniform(-0.1, 1.2, 300)
        codes = curve.codes(torch.from_numpy(np.tile(x, (1, 4, 1, 1))))[0, :, 0].tolist()
        for plane, colour in enumerate((0, 1, 1, 2)):
            gamma, black, extent = (values[colour] for values in parameters)
            compared = 0
            for value, code in zip(x.tolist(), codes[plane], strict=True):
                u = min(1.0, max(0.0, (value - black) / extent))
                y = ((u + EPSILON) ** gamma - EPSILON**gamma) / ((1 + EPSILON) ** gamma - EPSILON**gamma)
                if 0 < u < 1 and abs(y * 2**bits - round(y * 2**bits)) < 1e-9:
                    continue
                assert code == min(math.floor(y * 2**bits), 2**bits - 1)
                compared += 1
            assert compared > 290


@pytest.mark.parametrize("bits", range(1, 9))
def test_linear_drops_the_low_bits(bits):
    sensor = CameraSensor("p", Cfa.RGGB)
    codes = sensor.lookup(linear_image(bits))[0]
    assert codes.tolist() == [min(count * 2**bits // 4095, 2**bits - 1) for count in range(4096)]
    dropped = COUNTS >> (12 - bits)
    assert np.abs(codes - dropped.astype(int)).max() <= 1
    assert np.mean(codes != dropped) < 0.04


@pytest.mark.parametrize("adc_bits", [8, 10, 12, 14])
@pytest.mark.parametrize("bits", range(1, 9))
def test_log_is_its_formula_on_every_count(bits, adc_bits):
    """floor(ln(count + 1) / ln(2^n) · (2^b − 1)) in whole numbers: the last k with 2^(n k) <= (count + 1)^(2^b − 1)."""
    steps = 2**bits - 1
    sensor = CameraSensor("p", Cfa.RGGB, adc_bits, white=2.0**adc_bits - 1)
    codes = sensor.lookup(log_image(bits, adc_bits))
    expected = [(((count + 1) ** steps).bit_length() - 1) // adc_bits for count in range(2**adc_bits)]
    assert codes.tolist() == [expected] * 4


@pytest.mark.parametrize("bits", range(1, 9))
def test_the_published_form_is_its_formula_on_every_count(bits):
    """floor(x^γ (2^b − 1)), in whole numbers where γ is one."""
    steps = 2**bits - 1
    sensor = CameraSensor("p", Cfa.RGGB)
    for gamma, power in ((1.0, 1), (2.0, 2), (0.5, 0.5), (0.25, 0.25)):
        codes = sensor.lookup(paper(bits, gamma).image_codebook())[3].tolist()
        if power >= 1:
            expected = [count**power * steps // 4095**power for count in range(4096)]
        else:  # count^(1/n) steps^1 >= k 4095^(1/n): both sides to the nth
            n = round(1 / power)
            edges = [-(-(k**n) * 4095 // steps**n) for k in range(1, steps + 1)]
            expected = np.searchsorted(edges, COUNTS, side="right").tolist()
        assert codes == expected
        assert codes.count(steps) == 1, "the top code is for full scale alone"


def test_the_published_form_has_one_exponent_from_one_and_stops_at_its_least():
    assert PaperQuantizer(4).gamma.item() == 1.0
    assert [p.numel() for p in PaperQuantizer(4).parameters()] == [1]
    assert paper(4, -5.0).gamma.item() == pytest.approx(LEAST_GAMMA)


@pytest.mark.parametrize("gamma", [-30.0, -6.0, -2.0, 0.0, 2.0, 6.0, 30.0])
@pytest.mark.parametrize("extent", [-5.0, 0.0, 5.0])
def test_gamma_is_bounded_whatever_its_parameter(gamma, extent):
    for bits in (1, 4, 8):
        curve = ImageQuantizer(bits, gamma=[0.4] * 3, white=[0.5] * 3)
        with torch.no_grad():
            curve.gamma_raw.fill_(gamma)
            curve.range_raw.fill_(extent)
        assert bool((curve.gamma >= 1 / GAMMA_LIMIT * 0.9999).all())
        assert bool((curve.gamma <= GAMMA_LIMIT * 1.0001).all())
        assert (np.diff(curve.image_codebook().thresholds, axis=1) > 0).all()


HOSTILE = {
    "noise": lambda seen: (seen * torch.randn_like(seen)).sum(),
    "extremes": lambda seen: -seen.var(),
    "sameness": lambda seen: seen.var(),
    "dark": lambda seen: seen.sum(),
    "bright": lambda seen: -seen.sum(),
}


@pytest.mark.parametrize("rate", [0.02, 0.5])
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", ["ours", "paper"])
def test_a_hostile_loss_leaves_a_curve_that_can_be_saved(kind, name, rate):
    curve = PaperQuantizer(4) if kind == "paper" else ImageQuantizer(4, gamma=[0.4] * 3, white=[0.9] * 3)
    light = torch.rand(2, 4, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 2
    optimizer = torch.optim.AdamW(curve.parameters(), lr=rate, weight_decay=0.0)
    torch.manual_seed(9)
    for _ in range(200):
        optimizer.zero_grad()
        HOSTILE[name](curve(light)).backward()
        optimizer.step()
    assert all(bool(torch.isfinite(parameter).all()) for parameter in curve.parameters())
    book = curve.image_codebook()
    assert (np.diff(book.thresholds, axis=1) > 0).all()
    assert bool((curve.gamma > 0.04).all())
    if isinstance(curve, ImageQuantizer):
        assert bool((curve.gamma < 2.01).all())
        codes = [len(curve.codes(light)[:, plane].unique()) for plane in range(4)]
        assert min(codes) >= 2, "whatever is asked of it, it does not end with all light in one code"


@pytest.mark.parametrize("gamma", [-8.0, -3.0, 0.0, 3.0, 8.0])
@pytest.mark.parametrize("black", [-0.9, 0.0, 0.9])
@pytest.mark.parametrize("extent", [-5.0, 0.0, 5.0])
def test_light_within_the_range_pulls_every_parameter(gamma, black, extent):
    curve = ImageQuantizer(4, gamma=[0.5] * 3, white=[0.3, 0.5, 1.0])
    with torch.no_grad():
        for parameter, value in ((curve.gamma_raw, gamma), (curve.black_raw, black), (curve.range_raw, extent)):
            parameter.fill_(value)
    u = torch.linspace(-0.5, 1.5, 2000)
    colours = [0, 1, 1, 2]
    x = curve.black.detach()[colours, None] + curve.range.detach()[colours, None] * u
    (curve(x[None, :, None]) * torch.cos(5 * u + 1)).sum().backward()
    for name, parameter in curve.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert bool((parameter.grad.abs() > 1e-9).all()), name


@pytest.mark.parametrize("kind", ["ours", "paper"])
def test_the_gradient_is_that_of_the_curve_without_steps(kind):
    """Straight-through: in value the codes, in slope the formula, here by differences of its float64 self."""
    curve = paper(4, 0.6) if kind == "paper" else learned(4, 1)
    light = torch.rand(1, 4, 5, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 0.3 + 0.1
    weight = torch.randn(1, 4, 5, 7, generator=torch.Generator().manual_seed(3))
    (curve(light) * weight).sum().backward()
    for name, parameter in curve.named_parameters():
        for at in range(parameter.numel()):
            sums = []
            for step in (3e-3, -3e-3):
                with torch.no_grad():
                    parameter.view(-1)[at] += step
                    sums.append(float((curve.soft(light).double() * weight).sum()))
                    parameter.view(-1)[at] -= step
            slope = (sums[0] - sums[1]) / 6e-3
            assert parameter.grad.view(-1)[at].item() == pytest.approx(slope, rel=0.03, abs=1e-2), name


def test_the_soft_curve_follows_the_codes():
    for curve in (learned(8, 0), paper(8, 0.5)):
        light = torch.rand(1, 4, 20, 20, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        assert (curve.soft(light) - curve(light)).abs().max() < 2.1 / 255


@pytest.mark.parametrize("seed", range(4))
def test_the_fitted_curve_spends_its_codes_where_the_light_is(seed):
    """About half of them on the darker half of the values; even steps would spend two or three of 32."""
    rng = np.random.default_rng(seed)
    values = rng.lognormal(np.log([0.03, 0.04, 0.05]), 0.7, (20_000, 3))
    curve = ImageQuantizer.fitted(5, values)
    codes = curve.image_codebook().encode_physical(values)
    assert ((np.median(codes, axis=0) >= 12) & (np.median(codes, axis=0) <= 18)).all()
    assert curve.black.tolist() == [0.0] * 3
    assert curve.range.tolist() == pytest.approx(np.quantile(values, 0.999, axis=0).tolist(), rel=1e-5)


@pytest.mark.parametrize(
    ("values", "gamma"), [(np.zeros((9, 3)), 0.25), (np.ones((9, 3)), 1.0), (np.full((9, 3), -0.1), 0.25)]
)
def test_a_curve_can_be_fitted_to_no_light_and_to_light_alone(values, gamma):
    curve = ImageQuantizer.fitted(4, values)
    assert curve.gamma.tolist() == pytest.approx([gamma] * 3)
    assert (np.diff(curve.image_codebook().thresholds, axis=1) > 0).all()


def test_a_start_is_where_it_was_asked_for():
    curve = ImageQuantizer(4, gamma=[0.13, 1.0, 1.9], white=[0.2, 0.5, 1.0])
    assert curve.gamma.tolist() == pytest.approx([0.13, 1.0, 1.9], rel=1e-4)
    assert curve.range.tolist() == pytest.approx([0.2, 0.5, 1.0])


def test_the_reference_gives_the_counts_themselves():
    x = torch.tensor([-0.2, 0.0, 0.25, 1.0, 1.5], dtype=torch.float64).expand(1, 4, 1, 5)
    seen = UnquantizedPlanes()(x)
    assert seen.dtype == torch.float32
    assert seen.tolist() == [[[[-1.0, -1.0, -0.5, 1.0, 1.0]]] * 4]


def test_a_frozen_curve_learns_nothing_and_stays_itself():
    book = learned(5, 3).image_codebook()
    fixed = FixedPlanes(book)
    assert not list(fixed.parameters())
    assert fixed.image_codebook() == book


@pytest.mark.parametrize(
    ("bits", "gamma", "white"),
    [
        (0, 0.5, 1.0),
        (9, 0.5, 1.0),
        (4, 0.0, 1.0),
        (4, -1.0, 1.0),
        (4, 1 / 8, 1.0),
        (4, 8.0, 1.0),
        (4, math.nan, 1.0),
        (4, 0.5, 0.0),
        (4, 0.5, -0.1),
        (4, 0.5, math.nan),
        (4, 0.5, math.inf),
    ],
)
def test_impossible_curves(bits, gamma, white):
    with pytest.raises(CodebookError):
        ImageQuantizer(bits, gamma=[0.5, 0.5, gamma], white=[1.0, white, 1.0])
