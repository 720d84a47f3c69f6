"""Blocks, and the shared list of checks on every source that is built from what this package has."""

import numpy as np
import pytest
from factories import LABELS, sensor
from source_checks import check_source
from test_device_emulator_replay import trace

from device_emulator.replay import ReplaySource
from device_emulator.source import Block
from quantization.imu import ACC

SOURCES = {
    "a trace": lambda: ReplaySource([trace(300)], loop=False),
    "a trace, looped": lambda: ReplaySource([trace(300)], loop=True),
    "takes": lambda: ReplaySource([trace(300, seed=1), trace(77, seed=2)], loop=True),
    "gaps": lambda: ReplaySource([trace(300, gaps={1: 40, 100: 5000})], loop=True),
    "one sample": lambda: ReplaySource([trace(1)], loop=True),
    "16 bits, accelerometer": lambda: ReplaySource([trace(300, part=sensor(ACC, "bmi270"), rate_hz=20.0)], loop=False),
    "1 kHz": lambda: ReplaySource([trace(3000, rate_hz=1000.0)], loop=False),
}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES.keys())
def test_every_source_passes_the_checks(make):
    check_source(make)


def test_a_block_must_fit_together():
    counts = np.zeros((3, 6), np.int32)
    assert len(Block(counts, np.zeros(3, np.int16))) == 3
    with pytest.raises(ValueError, match="do not fit"):
        Block(counts, np.zeros(2, np.int16))
    with pytest.raises(ValueError, match="do not fit"):
        Block(counts[:, 0], np.zeros(3, np.int16))
    with pytest.raises(ValueError, match="gap"):
        Block(counts, np.zeros(3, np.int16), gap_ms=-1)


@pytest.mark.parametrize("wrong", ["count", "label", "unstable"])
def test_the_checks_find_a_source_that_is_wrong(wrong):
    class Broken(ReplaySource):
        def read(self, samples):
            block = super().read(samples)
            counts, label = block.counts.copy(), block.label.copy()
            if wrong == "count":
                counts += 4096
            elif wrong == "label":
                label[:] = len(LABELS)
            else:
                counts[:, 0] = len(counts)
            return Block(counts, label, block.gap_ms)

    with pytest.raises(AssertionError):
        check_source(lambda: Broken([trace(300)], loop=False))
