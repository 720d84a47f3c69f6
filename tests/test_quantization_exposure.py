"""From light to counts: noise as the formula has it, black levels kept, and no count that the ADC cannot give."""

import numpy as np
import pytest

from quantization.exposure import SHOT_RANGE, Noise, digitised, expose, filtered
from quantization.raw import CameraSensor, Cfa, to_planes

QUIET = Noise(0.0, 0.0)


@pytest.mark.parametrize("light", [-0.2, 0.0, 0.05, 0.4, 1.0])
@pytest.mark.parametrize("noise", [Noise(0.01, 1e-4), Noise(1e-4, 1e-6), Noise(0.0, 0.01)])
def test_noise_has_the_variance_that_the_light_gives_it(light, noise):
    noisy = noise.on(np.full(100_000, light, dtype=np.float32), np.random.default_rng(1))
    assert noisy.dtype == np.float32
    variance = max(light, 0.0) * noise.shot + noise.read
    errors = noisy.astype(float) - np.float32(light)
    assert abs(errors.mean()) < 5 * np.sqrt(variance / 100_000) + 1e-7
    assert errors.var() == pytest.approx(variance, rel=0.03)


def test_each_photosite_has_its_own_noise():
    noisy = Noise(0.01, 1e-4).on(np.full((4, 50, 50), 0.5, dtype=np.float32), np.random.default_rng(0))
    assert noisy.shape == (4, 50, 50)
    assert len(np.unique(noisy)) > 9_000
    assert abs(np.corrcoef(noisy[0].ravel(), noisy[1].ravel())[0, 1]) < 0.1


def test_levels_are_drawn_as_cameras_have_them():
    rng = np.random.default_rng(3)
    drawn = [Noise.draw(rng) for _ in range(3000)]
    shot, read = np.log([one.shot for one in drawn]), np.log([one.read for one in drawn])
    low, high = np.log(SHOT_RANGE)
    assert low <= shot.min() < low + 0.05
    assert high - 0.05 < shot.max() <= high
    assert np.quantile(shot, [0.25, 0.5, 0.75]) == pytest.approx(np.linspace(low, high, 5)[1:4], abs=0.15)
    # Brooks et al. 2019, equation 11.
    residual = read - (2.18 * shot + 1.20)
    assert abs(residual.mean()) < 0.025
    assert residual.std() == pytest.approx(0.26, rel=0.1)


@pytest.mark.parametrize("cfa", Cfa)
def test_a_photosite_sees_one_colour(cfa):
    light = np.random.default_rng(0).random((6, 8, 3)).astype(np.float32)
    behind = filtered(light, CameraSensor("p", cfa))
    for y in range(6):
        for x in range(8):
            assert behind[y, x] == light[y, x, "RGB".index(cfa.name[2 * (y % 2) + x % 2])]


def test_counts_begin_at_the_black_of_their_position_and_end_at_white():
    sensor = CameraSensor("p", Cfa.GRBG, 10, (50.0, 60.0, 70.0, 80.0), 1000.0)

    def cell(light: float) -> list[int]:
        mosaic = digitised(np.full((4, 6), light, dtype=np.float32), sensor)
        assert mosaic.dtype == np.uint16
        assert mosaic.shape == (4, 6)
        assert np.array_equal(mosaic, np.tile(mosaic[:2, :2], (2, 3)))
        return mosaic[:2, :2].ravel().tolist()

    assert cell(0.0) == [50, 60, 70, 80]
    assert cell(0.5) == [525, 530, 535, 540]
    assert cell(1.0) == [1000] * 4
    assert cell(1e6) == [1000] * 4
    assert cell(-0.02) == [31, 41, 51, 62], "noise goes below black"
    assert cell(-10.0) == [0] * 4


def test_counts_are_rounded_to_the_nearest():
    sensor = CameraSensor("p", Cfa.RGGB, 8, white=200.0)
    light = np.array([[10.4, 10.6], [99.49, 99.51]], dtype=np.float32) / 200
    assert digitised(light, sensor).tolist() == [[10, 11], [99, 100]]


@pytest.mark.parametrize("cfa", Cfa)
def test_an_exposure_without_noise_is_the_light(cfa):
    sensor = CameraSensor("p", cfa, 12, (64.0,) * 4, 4000.0)
    light = np.broadcast_to(np.array([0.25, 0.5, 0.75], dtype=np.float32), (4, 4, 3))
    frame = expose(light, sensor, QUIET, np.random.default_rng(0), exposure_us=77)
    assert (frame.sensor, frame.exposure_us) == (sensor, 77)
    values = [np.unique(plane).tolist() for plane in to_planes(frame.counts, cfa)]
    assert values == [[64 + 984], [64 + 1968], [64 + 1968], [64 + 2952]]


def test_the_same_generator_makes_the_same_frame():
    sensor = CameraSensor("p", Cfa.RGGB)
    light = np.full((8, 8, 3), 0.3, dtype=np.float32)
    one, again, other = (
        expose(light, sensor, Noise(0.01, 1e-4), np.random.default_rng(seed)).counts for seed in (5, 5, 6)
    )
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
