"""RAW frames: colours stay where the filter array has them, and a table lookup is the codebook on every count."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantization.baselines import linear
from quantization.codebook import Codebook
from quantization.errors import CodebookError, FrameError, SensorError
from quantization.imu import ACC
from quantization.raw import (
    COLOURS,
    FRAME_RATE_HZ,
    LIFT_SLACK,
    MAX_LIFT,
    ORDINARY_LIGHT,
    CameraSensor,
    Cfa,
    RawFrame,
    lift_for,
    to_mosaic,
    to_planes,
)

BLACKS = (60.0, 64.0, 66.5, 72.0)
FILTERS = st.sampled_from(list(Cfa))


def frame(counts: np.ndarray, cfa: Cfa = Cfa.RGGB, adc_bits: int = 12) -> RawFrame:
    return RawFrame(counts.astype(np.uint16), CameraSensor("p", cfa, adc_bits, white=2.0**adc_bits - 1))


def any_book(bits: int, seed: int) -> Codebook:
    """Other curves for each colour; some thresholds fall together, some are beyond all light."""
    rng = np.random.default_rng(seed)
    thresholds = np.sort(rng.choice(rng.normal(0.4, 0.5, 400).round(2), (3, 2**bits - 1)), axis=1)
    levels = np.sort(rng.random((3, 2**bits)), axis=1)
    return Codebook(COLOURS, bits, FRAME_RATE_HZ, thresholds=thresholds, levels=levels)


@given(st.floats(-0.01, 1.5))
def test_a_lift_is_the_most_that_leaves_the_mean_ordinary(mean):
    lift = lift_for(mean)
    assert lift == 0 or mean * 2**lift <= ORDINARY_LIGHT
    assert lift == MAX_LIFT or mean * 2 ** (lift + 1) > ORDINARY_LIGHT


@given(st.floats(0.0001, 1.0), st.integers(0, MAX_LIFT))
def test_a_lift_is_kept_while_it_nearly_fits(mean, before):
    kept = lift_for(mean, before)
    assert kept in (before, lift_for(mean))
    assert kept == 0 or mean * 2**kept <= ORDINARY_LIGHT * LIFT_SLACK
    assert lift_for(mean, kept) == kept, "the same light again changes nothing"


@pytest.mark.parametrize("cfa", Cfa)
def test_lifted_codes_are_those_of_brighter_light(cfa):
    sensor = CameraSensor("p", cfa, 12, BLACKS, 3900.0)
    counts = np.random.default_rng(3).integers(0, 400, (8, 8)).astype(np.uint16)
    # A sensor that is full at a quarter of the light above its black gives four times the light.
    bright = replace(sensor, black=(64.0,) * 4, white=64.0 + (3900 - 64) / 4)
    book = any_book(4, 1)
    even = replace(sensor, black=(64.0,) * 4)
    lifted = RawFrame(counts, even).codes(even.lookup(book, 2))
    assert np.array_equal(lifted, RawFrame(counts, bright).codes(bright.lookup(book)))
    dim = RawFrame(counts, replace(even, white=2500.0))
    assert dim.mean_light * 2 > ORDINARY_LIGHT / 2
    assert np.array_equal(dim.quantized(book), dim.codes(dim.sensor.lookup(book, lift_for(dim.mean_light))))
    assert len(np.unique(lifted)) > len(np.unique(RawFrame(counts, even).codes(even.lookup(book))))


def test_the_mean_light_is_over_each_photosites_own_black():
    sensor = CameraSensor("p", Cfa.GBRG, 12, BLACKS, 3900.0)
    full = [[black + 0.25 * (3900 - black) for black in BLACKS[:2]], [b + 0.25 * (3900 - b) for b in BLACKS[2:]]]
    counts = np.tile(np.rint(full).astype(np.uint16), (3, 5))
    assert RawFrame(counts, sensor).mean_light == pytest.approx(0.25, abs=2e-4)


def test_the_numbers_of_the_filter_arrays_are_those_of_the_wire():
    assert {cfa.name: cfa.value for cfa in Cfa} == {"RGGB": 0, "GRBG": 1, "GBRG": 2, "BGGR": 3}


@pytest.mark.parametrize("cfa", Cfa)
def test_one_scene_in_every_order_gives_the_same_planes(cfa):
    """The order's name spells a cell in reading order: red 10, green beside red 20, beside blue 25, blue 30."""
    mosaic = np.zeros((6, 4), dtype=np.uint16)
    for y in range(6):
        for x in range(4):
            row = cfa.name[2 * (y % 2) : 2 * (y % 2) + 2]
            mosaic[y, x] = {"R": 10, "B": 30, "G": 20 if "R" in row else 25}[row[x % 2]]
    planes = to_planes(mosaic, cfa)
    assert planes.shape == (4, 3, 2)
    assert [np.unique(plane).tolist() for plane in planes] == [[10], [20], [25], [30]]


@given(FILTERS, st.integers(1, 9), st.integers(1, 9), st.sampled_from([np.uint8, np.uint16]), st.integers(0, 2**32 - 1))
def test_planes_and_mosaics_are_two_forms_of_the_same(cfa, height, width, dtype, seed):
    mosaic = np.random.default_rng(seed).integers(0, 256, (2 * height, 2 * width)).astype(dtype)
    planes = to_planes(mosaic, cfa)
    assert planes.dtype == dtype
    assert planes.shape == (4, height, width)
    assert np.array_equal(to_mosaic(planes, cfa), mosaic)
    assert to_mosaic(planes, cfa).dtype == dtype
    # A photosite's neighbours in its plane are two away in the mosaic.
    assert np.array_equal(planes[:, 1:], to_planes(mosaic[2:], cfa))
    assert np.array_equal(planes[:, :, 1:], to_planes(mosaic[:, 2:], cfa))


@pytest.mark.parametrize("cfa", Cfa)
@pytest.mark.parametrize(("adc_bits", "bits"), [(8, 8), (8, 1), (10, 4), (12, 4), (14, 3), (16, 2)])
def test_the_lookup_is_the_codebook_on_every_count(adc_bits, bits, cfa):
    scale = 2**adc_bits / 2**12
    sensor = CameraSensor("p", cfa, adc_bits, tuple(black * scale for black in BLACKS), 3900 * scale)
    for seed in range(3):
        book = any_book(bits, seed)
        table = sensor.lookup(book)
        assert table.shape == (4, 2**adc_bits)
        assert table.dtype == np.uint8
        for position, letter in enumerate(cfa.name):
            black = BLACKS[position] * scale
            light = (np.arange(2**adc_bits) - black) / (3900 * scale - black)
            thresholds = book.thresholds["RGB".index(letter)]
            assert np.array_equal(table[position], (light[:, None] >= thresholds).sum(axis=1))


def test_a_lookup_by_hand():
    book = Codebook(
        COLOURS, 1, FRAME_RATE_HZ, thresholds=np.array([[0.25], [0.5], [0.75]]), levels=np.array([[0.0, 1.0]] * 3)
    )
    table = CameraSensor("p", Cfa.GBRG, 10, (0.0, 100.0, 200.0, 300.0), 1000.0).lookup(book)
    # Green, blue, red, green: the first count that is at least the threshold's light above its own black.
    assert [int(row.argmax()) for row in table] == [500, 775, 400, 650]


def test_a_codebook_of_motion_is_refused():
    with pytest.raises(CodebookError, match="red, green, blue, not acc_x"):
        CameraSensor("p", Cfa.RGGB).lookup(linear(ACC, 4, 50.0, [8.0] * 3))


@given(FILTERS, st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_codes_are_looked_up_photosite_by_photosite(cfa, height, width, seed):
    sensor = CameraSensor("p", cfa, 8, (1.0, 20.0, 40.0, 60.0), 250.0)
    counts = np.random.default_rng(seed).integers(0, 256, (2 * height, 2 * width), dtype=np.uint16)
    table = sensor.lookup(any_book(5, seed % 7))
    codes = RawFrame(counts, sensor).codes(table)
    assert codes.dtype == np.uint8
    expected = [
        [table[2 * (y % 2) + x % 2, counts[y, x]] for x in range(counts.shape[1])] for y in range(counts.shape[0])
    ]
    assert codes.tolist() == np.array(expected).tolist()


def test_light_is_a_share_of_what_lies_between_black_and_white():
    sensor = CameraSensor("p", Cfa.RGGB, 12, BLACKS, 4000.0)
    light = sensor.to_light(np.array([0, 64, 2032, 4000, 4095], dtype=np.uint16), 1)
    assert light.dtype == np.float64
    assert light.tolist() == [-64 / 3936, 0.0, 0.5, 1.0, 4031 / 3936]


@given(FILTERS, st.integers(1, 3), st.integers(1, 3), st.integers(2, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_binning_averages_photosites_of_one_colour(cfa, height, width, factor, seed):
    rng = np.random.default_rng(seed)
    more = rng.integers(0, factor, 2)  # these do not fill a cell
    counts = rng.integers(0, 4096, (2 * (height * factor + more[0]), 2 * (width * factor + more[1])), dtype=np.uint16)
    binned = frame(counts, cfa).binned(factor)
    assert binned.counts.shape == (2 * height, 2 * width)
    for y in range(2 * height):
        for x in range(2 * width):
            rows = [2 * (y // 2 * factor + i) + y % 2 for i in range(factor)]
            columns = [2 * (x // 2 * factor + i) + x % 2 for i in range(factor)]
            mean = sum(int(counts[r, c]) for r in rows for c in columns) / factor**2
            assert binned.counts[y, x] == int(mean + 0.5)


@pytest.mark.parametrize("cfa", Cfa)
def test_binning_keeps_colours_and_what_is_known_of_the_exposure(cfa):
    planes = np.full((4, 8, 8), 1, dtype=np.uint16) * np.array([100, 200, 201, 300], dtype=np.uint16)[:, None, None]
    full = replace(frame(to_mosaic(planes, cfa), cfa), exposure_us=1234)
    binned = full.binned(4)
    assert np.array_equal(to_planes(binned.counts, cfa), planes[:, :2, :2])
    assert (binned.sensor, binned.exposure_us) == (full.sensor, 1234)
    assert full.binned(1) is full


@pytest.mark.parametrize("factor", [2, 181, 182, 255, 300])
def test_binning_never_wraps(factor):
    """The sum of so many full photosites does not fit 32 bits, as their mean does."""
    counts = np.full((2 * factor, 2 * factor), 65535)
    assert frame(counts, adc_bits=16).binned(factor).counts.tolist() == [[65535, 65535], [65535, 65535]]


@pytest.mark.parametrize("factor", [0, -1, 5, 10**6])
def test_impossible_binning(factor):
    with pytest.raises(FrameError) as caught:
        frame(np.zeros((8, 64))).binned(factor)
    assert caught.value.reason == "size"


@pytest.mark.parametrize(
    "change",
    [
        {"adc_bits": 7},
        {"adc_bits": 17},
        {"black": (0.0, -1.0, 0.0, 0.0)},
        {"black": (0.0, 0.0, 0.0, 4000.0)},
        {"black": (float("nan"), 0.0, 0.0, 0.0)},
        {"white": 0.0},
        {"white": 4096.0},
        {"white": float("nan")},
        {"white": float("inf")},
    ],
)
def test_sensors_that_no_part_could_be(change):
    with pytest.raises(SensorError, match="part-9"):
        replace(CameraSensor("part-9", Cfa.RGGB, white=4000.0), **change)


@pytest.mark.parametrize("shape", [(), (4,), (0, 0), (0, 2), (3, 4), (4, 3), (2, 2, 2), (2, 8194)])
def test_frames_of_impossible_sizes(shape):
    with pytest.raises(FrameError) as caught:
        frame(np.zeros(shape))
    assert caught.value.reason == "size"


def test_frames_of_impossible_counts():
    sensor = CameraSensor("p", Cfa.RGGB)
    RawFrame(np.full((2, 2), 4095, dtype=np.uint16), sensor)
    with pytest.raises(FrameError, match="4096"):
        RawFrame(np.full((2, 2), 4096, dtype=np.uint16), sensor)
    with pytest.raises(FrameError, match="float64"):
        RawFrame(np.zeros((2, 2)), sensor)  # type: ignore[arg-type]
