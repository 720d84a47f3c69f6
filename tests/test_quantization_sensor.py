"""Parts: counts to physical units and back, JSON, axes."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantization.errors import SensorError
from quantization.imu import ACC, ACC_GYRO, check_channels, unit_of
from quantization.sensor import PARTS, Axes, Sensor

UNSIGNED = Sensor("adxl", ACC, 12, (0.004, 0.004, 0.0039), (2000, 2048, 1990), signed=False)


def symmetric(bits: int = 12, channels: tuple[str, ...] = ACC_GYRO) -> Sensor:
    return Sensor.symmetric("demo", channels, adc_bits=bits, full_scale={"acc": 8.0, "gyro": 2000.0})


@pytest.mark.parametrize("sensor", [symmetric(8), symmetric(12), symmetric(16), UNSIGNED])
def test_every_count_survives_the_way_to_physical_units_and_back(sensor):
    counts = np.repeat(sensor.all_counts()[:, None], len(sensor.channels), axis=1)
    assert len(counts) == 2**sensor.adc_bits
    assert np.array_equal(sensor.to_counts(sensor.to_physical(counts)), counts)


def test_counts_by_hand():
    assert UNSIGNED.to_physical([[2000, 2048, 1990]]).tolist() == [[0.0, 0.0, 0.0]]
    assert UNSIGNED.to_counts([[1.0, 1.0, -1.0]]).tolist() == [[2250, 2298, 1734]]  # 1990 - 256.41
    assert UNSIGNED.to_counts([[100.0, -100.0, 0.0]]).tolist() == [[4095, 0, 1990]], "saturates"
    assert (symmetric().count_min, symmetric().count_max) == (-2048, 2047)
    assert (UNSIGNED.count_min, UNSIGNED.count_max) == (0, 4095)
    assert symmetric().to_counts([[8.0] * 6]).tolist() == [[2047, 2047, 2047, 8, 8, 8]]


def test_json_round_trip():
    for sensor in (symmetric(), UNSIGNED):
        assert Sensor.from_dict(json.loads(json.dumps(sensor.to_dict()))) == sensor


@pytest.mark.parametrize(
    "change",
    [
        {"adc_bits": 7},
        {"adc_bits": 17},
        {"adc_bits": float("inf")},
        {"adc_bits": None},
        {"lsb": [0.0] * 3},
        {"lsb": [-1.0] * 3},
        {"lsb": [float("nan")] * 3},
        {"lsb": [float("inf")] * 3},
        {"lsb": [1.0] * 2},
        {"lsb": 1.0},
        {"offset": [0, 0, 5000]},
        {"offset": [float("inf")] * 3},
        {"offset": [10**400] * 3},
        {"channels": []},
        {"channels": ["acc_x", "acc_x", "acc_z"]},
        {"channels": ["acc_x", "ACC Y", "acc_z"]},
        {"channels": [["acc_x"], "acc_y", "acc_z"]},
        {"channels": [1, 2, 3]},
    ],
)
def test_no_part_is_like_that(change):
    with pytest.raises(SensorError):
        Sensor.from_dict(UNSIGNED.to_dict() | change)


def test_a_missing_field_is_named():
    description = UNSIGNED.to_dict()
    del description["signed"]
    with pytest.raises(SensorError, match="signed"):
        Sensor.from_dict(description)


def test_channel_names():
    check_channels(tuple(f"c{i}" for i in range(16)))
    for bad in ((), tuple(f"c{i}" for i in range(17)), ("a" * 17,), ("",), ("1a",), ("acc_x\n",), ("é",), ("a\0",)):
        with pytest.raises(SensorError):
            check_channels(bad)
    assert [unit_of(c) for c in ("acc_x", "gyro_z", "mag_x", "acc")] == ["g", "deg/s", "1", "g"]


def test_parts_offer_only_what_they_have():
    assert PARTS["bma400"].sensor("bma400", ACC, acc_g=8.0, gyro_dps=None).lsb == (8 / 2048,) * 3
    assert PARTS["bmi270"].sensor("bmi270", ACC_GYRO, acc_g=2.0, gyro_dps=125.0).lsb[3] == 125 / 32768
    with pytest.raises(SensorError, match="±3 g"):
        PARTS["bma400"].sensor("bma400", ACC, acc_g=3.0, gyro_dps=None)
    with pytest.raises(SensorError, match="no gyroscope"):
        PARTS["bma400"].sensor("bma400", ACC, acc_g=8.0, gyro_dps=2000.0)
    with pytest.raises(SensorError, match="no full scale"):
        PARTS["bma400"].sensor("bma400", ACC_GYRO, acc_g=8.0, gyro_dps=None)


SIGNED_PERMUTATIONS = st.tuples(st.permutations((1, 2, 3)), st.tuples(*[st.sampled_from((-1, 1))] * 3)).map(
    lambda drawn: tuple(axis * sign for axis, sign in zip(*drawn, strict=True))
)


@given(SIGNED_PERMUTATIONS, st.lists(st.integers(-2047, 2047), min_size=6, max_size=6))
def test_axes_are_a_signed_permutation_of_physical_values(entries, sample):
    sensor = symmetric()
    counts = np.array([sample], dtype=np.int32)
    turned = sensor.to_physical(Axes(entries).apply(counts, sensor))[0]
    before = sensor.to_physical(counts)[0]
    for triple in (0, 3):
        for i, entry in enumerate(entries):
            assert turned[triple + i] == np.sign(entry) * before[triple + abs(entry) - 1]


def test_a_flip_of_the_lowest_count_saturates():
    assert Axes((-1, 2, 3)).apply(np.array([[-2048, 5, 6]]), symmetric(channels=ACC)).tolist() == [[2047, 5, 6]]


def test_a_flip_goes_about_the_zero_of_an_unsigned_part():
    sensor = replace(UNSIGNED, offset=(2000, 2000, 2000))
    assert Axes((-1, 2, 3)).apply(np.array([[2100, 1, 2]]), sensor).tolist() == [[1900, 1, 2]]


def test_axes_carry_their_zero_along():
    sensor = replace(UNSIGNED, lsb=(0.004,) * 3)  # zeros at 2000, 2048, 1990
    turned = Axes((2, 3, -1)).apply(np.array([[2001, 2050, 1993]]), sensor)
    assert (turned - np.array(sensor.offset)).tolist() == [[2, 3, -1]]


def test_axes_of_unequal_lsb_cannot_change_places():
    assert Axes((-1, 2, 3)).apply(np.array([[2001, 2050, 1993]]), UNSIGNED).tolist() == [[1999, 2050, 1993]]
    with pytest.raises(SensorError, match="LSB"):
        Axes((1, 3, 2)).apply(np.array([[2001, 2050, 1993]]), UNSIGNED)


@pytest.mark.parametrize("entries", [(1, 2), (1, 1, 3), (0, 1, 2), (1, 2, 4), (), (1, 2, 3, -1)])
def test_other_axes_are_refused(entries):
    with pytest.raises(SensorError):
        Axes(entries)


def test_axes_need_triples():
    with pytest.raises(SensorError, match="triples"):
        Axes((2, 1, 3)).apply(np.zeros((1, 2), np.int32), symmetric(channels=("acc_x", "acc_y")))
