from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from factories import codebook, tiny_bundle

from gateway.batcher import MicroBatcher
from gateway.windows import Window
from models.bundle import Bundle, Prediction


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    folder: Path = tmp_path_factory.mktemp("bundles")
    return [tiny_bundle(folder), tiny_bundle(folder, "flat", book=codebook(curved=False))]


def window(bundle: Bundle, number: int) -> Window:
    codes = np.random.default_rng(number).integers(0, 16, (50, 6), dtype=np.uint8)
    return Window(f"w{number}", 1, bundle, codes, np.arange(50.0), 20.0, 0.0, 0.0, number)


class Answers:
    def __init__(self) -> None:
        self.batches: list[list[Window]] = []
        self.rows: dict[int, np.ndarray] = {}

    def __call__(self, windows: list[Window], prediction: Prediction) -> None:
        assert len({id(one.bundle) for one in windows}) == 1
        self.batches.append(windows)
        for one, row in zip(windows, prediction.probabilities, strict=True):
            self.rows[one.received_ns] = row


@asynccontextmanager
async def running(batcher: MicroBatcher, answers: Answers) -> AsyncIterator[None]:
    task = asyncio.create_task(batcher.run(answers))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_every_window_gets_its_own_answer(bundles: list[Bundle]) -> None:
    batcher, answers = MicroBatcher(size=8, deadline_s=0.005), Answers()
    windows = [window(bundles[i % 2], i) for i in range(50)]
    async with running(batcher, answers):
        for one in windows:
            batcher.put(one)
        await asyncio.wait_for(batcher.drain(), 10)
    for i, one in enumerate(windows):
        assert answers.rows[i] == pytest.approx(one.bundle.predict(one.codes[None]).probabilities[0], abs=1e-5)
    assert max(len(batch) for batch in answers.batches) == 8
    assert len(batcher) == 0
    for bundle in bundles:
        order = [one.received_ns for batch in answers.batches for one in batch if one.bundle is bundle]
        assert order == sorted(order)


async def test_a_lonely_window_waits_for_the_deadline_only(bundles: list[Bundle]) -> None:
    batcher, answers = MicroBatcher(size=64, deadline_s=0.05), Answers()
    async with running(batcher, answers):
        started = time.monotonic()
        batcher.put(window(bundles[0], 1))
        await asyncio.wait_for(batcher.drain(), 10)
        assert time.monotonic() - started >= 0.05
    assert [len(batch) for batch in answers.batches] == [1]


async def test_a_full_batch_does_not_wait(bundles: list[Bundle]) -> None:
    batcher, answers = MicroBatcher(size=4, deadline_s=60), Answers()
    async with running(batcher, answers):
        for i in range(4):
            batcher.put(window(bundles[0], i))
        await asyncio.wait_for(batcher.drain(), 10)
    assert [len(batch) for batch in answers.batches] == [4]


async def test_the_queue_is_bounded_and_drops_the_oldest(bundles: list[Bundle]) -> None:
    batcher, answers = MicroBatcher(size=4, deadline_s=0, queue_limit=10), Answers()
    for i in range(25):
        batcher.put(window(bundles[i % 2], i))
    assert (len(batcher), batcher.dropped) == (10, 15)
    async with running(batcher, answers):
        await asyncio.wait_for(batcher.drain(), 10)
    assert sorted(answers.rows) == list(range(15, 25))
