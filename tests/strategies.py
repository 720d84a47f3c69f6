"""What hypothesis draws: codebooks, and codes that fit them."""

import itertools

import numpy as np
from hypothesis import strategies as st
from reference import Book

from quantization import rangecoder  # noqa: F401 - compiles here, not within an example's deadline
from quantization.codebook import Codebook, ContextLayout, statistics_from_counts
from quantization.imu import ACC, ACC_GYRO, Codes

_NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,15}", fullmatch=True)
_VALUES = st.floats(-1e6, 1e6, allow_nan=False)


@st.composite
def codebooks(draw: st.DrawFn, max_bits: int = 8) -> Codebook:
    """Any valid codebook; the tables' contents come from a drawn seed, their first edges from hypothesis itself."""
    channels = draw(
        st.one_of(st.sampled_from([ACC, ACC_GYRO]), st.lists(_NAMES, min_size=1, max_size=16, unique=True).map(tuple))
    )
    bits = draw(st.integers(1, max_bits))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, codes = len(channels), 2**bits
    thresholds = rng.normal(size=(rows, codes - 1))
    thresholds[:, 0] = draw(_VALUES)
    levels = rng.choice([-2.5, 0.0, 0.1, 7.25], size=(rows, codes))  # equal neighbours are legal
    counts = rng.integers(0, 1000, size=(rows, codes))
    contexts = rng.integers(1, 256, size=(rows, ContextLayout.of(bits).size)).astype(np.uint8)
    return Codebook(
        channels,
        bits,
        draw(st.floats(1, 1000)),
        thresholds=np.sort(thresholds, axis=1),
        levels=np.sort(levels, axis=1),
        **draw(st.sampled_from([{}, {"statistics": statistics_from_counts(counts)}, {"contexts": contexts}])),
    )


@st.composite
def blocks(draw: st.DrawFn) -> tuple[Codes, int]:
    """``[n, C]`` codes and their bits; n may be 0."""
    bits = draw(st.integers(1, 8))
    shape = (draw(st.integers(0, 40)), draw(st.integers(1, 16)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.integers(0, 2**bits, size=shape).astype(np.uint8), bits


def as_book(book: Codebook) -> Book:
    """The same for the reference."""
    statistics = None if book.statistics is None else book.statistics.tolist()
    contexts = None if book.contexts is None else book.contexts.tolist()
    tables = (book.thresholds.tolist(), book.levels.tolist(), statistics, contexts)
    return Book(list(book.channels), book.bits, book.rate_hz, *tables)


def neighbours(values: list[float]) -> list[float]:
    """Each value with the next floats on both sides."""
    return list(itertools.chain.from_iterable((np.nextafter(v, -np.inf), v, np.nextafter(v, np.inf)) for v in values))
