"""What every source of samples must hold to. One list, run on all of them."""

from collections.abc import Callable
from typing import get_args

import numpy as np

from device_emulator.source import Block, Source
from protocol.messages import Label, SourceKind


def read_all(source: Source, limit: int, at_a_time: int) -> list[Block]:
    """Blocks of up to ``limit`` samples in all; fewer if the source ends."""
    blocks: list[Block] = []
    left = limit
    while left:
        block = source.read(min(at_a_time, left))
        if len(block) == 0:
            break
        blocks.append(block)
        left -= len(block)
    return blocks


def stream(blocks: list[Block]) -> tuple[list[list[int]], list[int], list[tuple[int, int]]]:
    """Samples, labels, and gaps as (index of the first sample after it, ms)."""
    gaps, at = [], 0
    for block in blocks:
        if block.gap_ms:
            gaps.append((at, block.gap_ms))
        at += len(block)
    return (
        [row for block in blocks for row in block.counts.tolist()],
        [one for block in blocks for one in block.label.tolist()],
        gaps,
    )


def check_source(make_source: Callable[[], Source], samples: int = 2000) -> None:
    """``make_source`` gives a fresh source, equal to the last one, each time."""
    source = make_source()
    channels = len(source.sensor.channels)
    assert 1 <= source.rate_hz <= 1000
    assert source.kind in get_args(SourceKind)
    assert isinstance(source.labels, tuple)
    assert len(set(source.labels)) == len(source.labels)
    for name in source.labels:
        Label(activity=name, from_tick=0, to_tick=1)
    assert isinstance(source.subject, str)

    blocks = read_all(source, samples, 50)
    assert blocks, "a source gives at least one sample"
    for block in blocks:
        assert 1 <= len(block) <= 50
        assert block.counts.dtype == np.int32
        assert block.counts.shape == (len(block), channels)
        assert block.label.dtype == np.int16
        assert block.label.shape == (len(block),)
        assert block.counts.min() >= source.sensor.count_min
        assert block.counts.max() <= source.sensor.count_max
        assert block.label.min() >= -1
        assert block.label.max() < len(source.labels)
        assert isinstance(block.gap_ms, int)
        assert block.gap_ms >= 0
    assert blocks[0].gap_ms == 0, "a device's time begins with its first sample"

    ended = sum(map(len, blocks)) < samples
    if ended:
        assert len(source.read(1)) == 0, "what has ended stays so"
        assert source.read(50).counts.shape == (0, channels)

    expected = stream(blocks)
    assert stream(read_all(make_source(), samples, 50)) == expected, "the same source gives the same samples"
    for at_a_time in (1, 7, 1024):
        assert stream(read_all(make_source(), samples, at_a_time)) == expected, (
            f"what comes out depends on asking for {at_a_time} at a time"
        )
