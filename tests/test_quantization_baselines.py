"""Quantizers that are not learned, against their formulas."""

import math

import numpy as np
import pytest
from factories import codebook, sensor

from quantization.baselines import linear, mu_law
from quantization.codec import Encoder
from quantization.imu import ACC_GYRO

SCALE = [8.0, 8.0, 8.0, 2000.0, 2000.0, 2000.0]


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("part", ["generic12", "lsm6dso"])
def test_linear_drops_the_lowest_bits_of_the_adc(bits, part):
    adc = sensor(part=part)
    encoder = Encoder(linear(ACC_GYRO, bits, 50.0, SCALE), adc)
    counts = np.repeat(adc.all_counts()[:, None], 6, axis=1)
    assert np.array_equal(encoder.encode(counts), (counts - adc.count_min) >> (adc.adc_bits - bits))


@pytest.mark.parametrize("bits", range(1, 9))
def test_linear_levels_are_the_middles_of_their_cells(bits):
    book = linear(ACC_GYRO, bits, 50.0, SCALE)
    for scale, edges, levels in zip(SCALE, book.thresholds, book.levels, strict=True):
        cells = np.concatenate([[-scale], edges, [scale]])
        assert np.allclose(levels, (cells[1:] + cells[:-1]) / 2)


@pytest.mark.parametrize("bits", range(1, 9))
def test_mu_law_is_its_formula(bits):
    rng = np.random.default_rng(bits)
    values = rng.uniform(-1, 1, size=(2000, 6)) ** 3 * SCALE
    codes = mu_law(ACC_GYRO, bits, 50.0, SCALE).encode_physical(values)
    for i, j in np.ndindex(200, 6):
        x = values[i, j] / SCALE[j]
        y = math.copysign(math.log1p(255 * abs(x)) / math.log1p(255), x)
        assert codes[i, j] == min(2**bits - 1, math.floor((y + 1) * 2 ** (bits - 1)))


def test_mu_law_is_fine_near_zero_and_odd():
    book = codebook(bits=4)
    steps = np.diff(book.thresholds[0])
    assert np.allclose(steps, steps[::-1])
    assert steps.max() > 20 * steps.min()
    assert book.thresholds[0, 7] == 0.0
    assert np.allclose(book.levels, -book.levels[:, ::-1])


def test_levels_lie_in_their_own_cells():
    for book in (codebook(bits=5), codebook(bits=5, curved=False)):
        codes = book.encode_physical(book.levels.T)
        assert np.array_equal(codes, np.repeat(np.arange(32)[:, None], 6, axis=1))
