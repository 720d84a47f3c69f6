"""The artefact: both file forms, the digest, the layout by hand, hostile files, code statistics."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import codebook
from hostile_files import CODEBOOKS, HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from reference import Book
from strategies import as_book, codebooks, neighbours
from vector_files import read_vector

from quantization.codebook import (
    MAX_CODEBOOK_BYTES,
    STATISTICS_TOTAL,
    Codebook,
    ContextLayout,
    statistics_from_counts,
)
from quantization.errors import CodebookError
from quantization.sensor import Sensor


def with_statistics(bits: int = 2) -> Codebook:
    book = codebook(bits=bits)
    return replace(book, statistics=statistics_from_counts(np.arange(6 * 2**bits).reshape(6, 2**bits)))


def with_contexts(bits: int = 2) -> Codebook:
    shape = (6, ContextLayout.of(bits).size)
    return replace(codebook(bits=bits), contexts=np.random.default_rng(0).integers(1, 256, shape).astype(np.uint8))


@settings(max_examples=30)
@given(codebooks())
def test_bytes_are_those_of_the_reference_and_read_back(book):
    data = bytes(book)
    assert data == as_book(book).to_bytes()
    assert Book.from_bytes(data) == as_book(book)
    again = Codebook.from_bytes(data)
    assert again == book
    assert hash(again) == hash(book)
    assert bytes(again) == data


@settings(max_examples=30)
@given(codebooks(max_bits=5))
def test_json_reads_back_exactly(book):
    again = Codebook.from_json(book.to_json())
    assert again == book
    assert bytes(again) == bytes(book)


@settings(max_examples=30)
@given(codebooks())
def test_size_is_that_of_the_layout_table(book):
    channels, codes = len(book.channels), 2**book.bits
    size = 16 + channels * (16 + 8 * (codes - 1) + 8 * codes)
    size += channels * codes * 2 if book.statistics is not None else 0
    size += channels * ContextLayout.of(book.bits).size if book.contexts is not None else 0
    assert len(bytes(book)) == size <= MAX_CODEBOOK_BYTES


def test_the_largest_codebook_is_exactly_as_large_as_promised():
    table = np.arange(256.0)[None, :].repeat(16, axis=0)
    contexts = np.full((16, ContextLayout.of(8).size), 255, np.uint8)
    names = tuple(f"channel_{i}" for i in range(16))
    book = Codebook(names, 8, 50.0, thresholds=table[:, 1:].copy(), levels=table, contexts=contexts)
    assert len(bytes(book)) == MAX_CODEBOOK_BYTES


@settings(max_examples=60)
@given(codebooks(max_bits=4), st.data())
def test_physical_values_encode_as_in_the_reference(book, data):
    reference = as_book(book)
    edges = st.sampled_from(neighbours(book.thresholds.ravel().tolist()))
    value = st.one_of(edges, st.floats(-1e7, 1e7))
    rows = data.draw(st.lists(st.lists(value, min_size=len(book.channels), max_size=len(book.channels)), min_size=1))
    codes = book.encode_physical(rows)
    assert codes.tolist() == [reference.encode(row) for row in rows]
    assert book.decode(codes).tolist() == [reference.decode(row) for row in codes.tolist()]


def test_golden_bytes():
    vector = read_vector("codebook.hex")
    book = Codebook(("acc_x",), 1, 50.0, thresholds=np.array([[0.0]]), levels=np.array([[-0.5, 0.5]]))
    assert bytes(book) == vector
    assert book.short_digest.hex() == "23acea56"
    assert book.digest == read_vector("codebook-digest.hex")
    coded = replace(book, statistics=np.array([[8192, 24576]], dtype=np.uint16))
    assert bytes(coded) == read_vector("codebook-statistics.hex")
    contexts = [128, *([128] * 3 + [192] * 3 + [243] * 3) * 2, *[128] * 24]
    coded = replace(book, contexts=np.array([contexts], dtype=np.uint8))
    assert bytes(coded) == read_vector("codebook-contexts.hex")


def test_any_other_field_is_another_digest():
    book = with_statistics()
    up = np.nextafter(book.thresholds, np.inf)
    moved = book.thresholds.copy()
    moved[5, 2] = up[5, 2]
    levels = book.levels.copy()
    levels[0, 3] = np.nextafter(levels[0, 3], np.inf)
    statistics = book.statistics.copy()
    statistics[3, 0] += 1
    statistics[3, 3] -= 1
    contexts = np.full((6, ContextLayout.of(2).size), 128, np.uint8)
    more = contexts.copy()
    more[5, -1] = 129
    others = [
        book,
        replace(book, statistics=None, contexts=contexts),
        replace(book, statistics=None, contexts=more),
        replace(book, channels=("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_w")),
        replace(book, channels=book.channels[::-1]),
        replace(book, rate_hz=math.nextafter(50.0, 51.0)),
        replace(book, thresholds=moved),
        replace(book, levels=levels),
        replace(book, statistics=statistics),
        replace(book, statistics=None),
        codebook(bits=3),
    ]
    assert len({other.digest for other in others}) == len(others)
    assert book != "something else"
    assert len({*others, *[Codebook.from_bytes(bytes(other)) for other in others]}) == len(others)


@pytest.mark.parametrize("book", [with_statistics(1), with_contexts(1)])
def test_every_flipped_bit_is_refused_or_makes_another_digest(book):
    data = bytes(book)
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            other = Codebook.from_bytes(bytes(flipped))
        except CodebookError:
            continue
        assert other.digest != book.digest
        assert bytes(other) == bytes(flipped), "no second layout for the same codebook"


@pytest.mark.parametrize("book", [with_statistics(), with_contexts()])
def test_every_truncation_is_refused(book):
    data = bytes(book)
    for length in range(len(data)):
        with pytest.raises(CodebookError):
            Codebook.from_bytes(data[:length])
    with pytest.raises(CodebookError):
        Codebook.from_bytes(data + b"\0")


@settings(max_examples=200)
@given(st.binary(max_size=200), st.booleans())
def test_noise_is_refused_with_our_error_alone(noise, headed):
    try:
        Codebook.from_bytes(b"GWCB\x01" + noise if headed else noise)
    except CodebookError:
        return


@pytest.mark.parametrize("name", sorted(CODEBOOKS))
def test_hostile_file(name):
    data, expected = CODEBOOKS[name]
    path = HOSTILE / name
    assert path.read_bytes() == data, "the file is what hostile_files.py makes; run it to write it anew"
    with pytest.raises(CodebookError, match=expected) as caught:
        Codebook.load(path)
    assert str(path) in str(caught.value), "an error names its file"


@pytest.mark.parametrize("book", [with_statistics(), with_contexts()])
def test_files(tmp_path, book):
    book.save(tmp_path / "codebook.bin")
    assert Codebook.load(tmp_path / "codebook.bin") == book
    assert Codebook.load(tmp_path / "codebook.json") == book
    assert (tmp_path / "codebook.bin").read_bytes() == bytes(book)
    shown = json.loads((tmp_path / "codebook.json").read_text(encoding="utf-8"))
    assert [row["unit"] for row in shown["channels"]] == ["g"] * 3 + ["deg/s"] * 3


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("absent.bin", None),
        ("absent.json", None),
        ("empty.bin", b""),
        ("empty.json", b""),
        ("latin1.json", b"\xff\xfe"),
        ("deep.json", b"[" * 100_000),
        ("null.json", b"null"),
        ("list.json", b"[]"),
        ("number.json", b'{"channels": [1]}'),
        ("text.json", b'{"channels": "abc"}'),
        ("long.bin", bytes(2 * MAX_CODEBOOK_BYTES)),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CodebookError) as caught:
        Codebook.load(path)
    assert str(path) in str(caught.value)


def json_with(book: Codebook | None = None, **changes: object) -> str:
    document = json.loads((book or with_statistics()).to_json())
    for key, value in changes.items():
        if key in document:
            document[key] = value
        else:
            document["channels"][1][key] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": "00" * 32},
        {"digest": None},
        {"bits": 3},
        {"bits": "many"},
        {"bits": 1e400},
        {"rate_hz": 51.0},
        {"rate_hz": float("nan")},
        {"rate_hz": None},
        {"channels": []},
        {"channels": {}},
        {"channel": "acc_x"},
        {"thresholds": [0.0, 1.0]},
        {"thresholds": [None] * 3},
        {"thresholds": [3.0, 2.0, 1.0]},
        {"thresholds": [0.0, 1.0, float("inf")]},
        {"levels": "abcd"},
        {"statistics": [-1, 1, 1, 32767]},
        {"statistics": [70000, 1, 1, 1]},
        {"statistics": [0, 0, 0, 32768]},
    ],
)
def test_json_that_is_not_what_its_digest_says(changes):
    with pytest.raises(CodebookError):
        Codebook.from_json(json_with(**changes))


@pytest.mark.parametrize(
    "contexts", [[128] * 83, [0] * 83, [256] * 83, [-1] * 83, [128] * 82, "abc", None, [0.5] * 83, [[128] * 83]]
)
def test_json_contexts_that_are_not_what_the_digest_says(contexts):
    with pytest.raises(CodebookError):
        Codebook.from_json(json_with(with_contexts(), contexts=contexts))
    document = json.loads(with_contexts().to_json())
    del document["channels"][2]["contexts"]
    with pytest.raises(CodebookError):
        Codebook.from_json(json.dumps(document))


def test_statistics_or_contexts_not_both():
    with pytest.raises(CodebookError, match="not both"):
        replace(with_statistics(), contexts=with_contexts().contexts)


def test_the_digest_error_shows_both():
    text = with_statistics().to_json().replace('"rate_hz": 50.0', '"rate_hz": 51.0')
    with pytest.raises(CodebookError, match=f"{with_statistics().digest.hex()[:8]}.*contents make"):
        Codebook.from_json(text)


def test_a_missing_field_of_the_json_form():
    for field in ("digest", "bits", "rate_hz", "channels"):
        document = json.loads(with_statistics().to_json())
        del document[field]
        with pytest.raises(CodebookError, match=field):
            Codebook.from_json(json.dumps(document))


GOOD: dict = {
    "channels": ("acc_x",),
    "bits": 2,
    "rate_hz": 50.0,
    "thresholds": np.array([[-1.0, 0.0, 1.0]]),
    "levels": np.array([[-2.0, -0.5, 0.5, 2.0]]),
    "statistics": np.array([[1, 1, 1, 32765]], dtype=np.uint16),
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("channels", ()),
        ("channels", ("acc_x", "acc_x")),
        ("channels", ("acc_x", "acc_y")),
        ("channels", ("Acc",)),
        ("bits", 0),
        ("bits", 9),
        ("bits", 3),
        ("rate_hz", 0.99),
        ("rate_hz", 1000.1),
        ("rate_hz", float("nan")),
        ("thresholds", np.array([[-1.0, 1.0, 0.0]])),
        ("thresholds", np.array([[-1.0, np.nan, 0.0]])),
        ("thresholds", np.array([[-np.inf, 0.0, 0.0]])),
        ("thresholds", np.array([[-1.0, 0.0]])),
        ("thresholds", np.array([[-1, 0, 1]])),
        ("thresholds", np.array([[-1.0, 0.0, 1.0]], dtype=np.float32)),
        ("thresholds", np.array([-1.0, 0.0, 1.0])),
        ("levels", np.array([[0.0, 0.0, 0.0, -1e-300]])),
        ("levels", np.array([[0.0, 0.0, 0.0, np.inf]])),
        ("levels", np.array([[0.0, 0.0, 0.0]])),
        ("statistics", np.array([[0, 1, 1, 32766]], dtype=np.uint16)),
        ("statistics", np.array([[1, 1, 1, 1]], dtype=np.uint16)),
        ("statistics", np.array([[65535, 32767, 1, 1]], dtype=np.uint16)),
        ("statistics", np.array([[1, 1, 1, 32765]])),
        ("contexts", np.full((1, 83), 128, np.uint8)),  # beside statistics
    ],
)
def test_invalid_fields(field, value):
    Codebook(**GOOD)
    with pytest.raises(CodebookError):
        Codebook(**(GOOD | {field: value}))


@pytest.mark.parametrize(
    "contexts",
    [
        np.zeros((1, 83), np.uint8),
        np.full((1, 83), 128, np.uint16),
        np.full((1, 84), 128, np.uint8),
        np.full((2, 83), 128, np.uint8),
        np.full(83, 128, np.uint8),
        np.array([[128] * 82 + [0]], np.uint8),
    ],
)
def test_invalid_contexts(contexts):
    fields = GOOD | {"statistics": None}
    Codebook(**fields, contexts=np.full((1, 83), 1, np.uint8))
    with pytest.raises(CodebookError, match="contexts"):
        Codebook(**fields, contexts=contexts)


@pytest.mark.parametrize("bits", range(1, 9))
def test_a_layout_without_gaps(bits):
    part = ContextLayout.of(bits)
    classes, exponents = min(2**bits, 16), part.exponents
    assert part.stay == 2**bits - 1
    assert np.diff((*part[:5], part.size)).tolist() == [
        9 * classes,
        4 * classes,
        6 * classes,
        3 * exponents,
        exponents,
    ]


def test_equal_thresholds_and_levels_are_legal():
    """Curves of the published form have them: edges that no value reaches fall together."""
    book = Codebook(("acc_x",), 2, 50.0, thresholds=np.zeros((1, 3)), levels=np.zeros((1, 4)))
    assert book.encode_physical([[-1e-300], [0.0], [1.0]]).ravel().tolist() == [0, 3, 3]
    assert Codebook.from_bytes(bytes(book)) == book


def test_its_arrays_cannot_be_changed():
    book, other = with_statistics(), with_contexts()
    for table in (book.thresholds, book.levels, book.statistics, other.contexts):
        with pytest.raises(ValueError, match="read-only"):
            table[0, 0] = 1


def test_thresholds_outside_of_the_parts_range():
    part = Sensor.symmetric("demo", ("acc_x",), adc_bits=8, full_scale={"acc": 1.0})
    book = Codebook(("acc_x",), 2, 50.0, np.array([[-9.0, 127 / 128, 9.0]]), np.zeros((1, 4)))
    assert book.thresholds_for(part).tolist() == [[-128, 127, 128]], "count_max + 1 is never reached"


def test_a_part_with_other_channels_is_refused():
    part = Sensor.symmetric("demo", ("acc_y",), adc_bits=8, full_scale={"acc": 1.0})
    with pytest.raises(CodebookError, match=r"acc_x.*acc_y"):
        codebook(("acc_x",)).thresholds_for(part)


COUNTS = st.integers(1, 4).flatmap(
    lambda bits: arrays(np.float64, (2, 2**bits), elements=st.integers(0, 10**9).map(float))
)


@settings(max_examples=60)
@given(COUNTS)
def test_statistics_are_frequencies(counts):
    table = statistics_from_counts(counts)
    assert table.dtype == np.uint16
    assert table.shape == counts.shape
    assert (table >= 1).all()
    assert (table.sum(axis=1, dtype=int) == STATISTICS_TOTAL).all()
    codes = counts.shape[1]
    for row, frequencies in zip(counts, table.astype(int), strict=True):
        if row.sum() == 0:
            continue
        order = np.lexsort((frequencies, row))
        assert (np.diff(frequencies[order]) >= 0).all(), "a more frequent code has no smaller share"
        share = row / row.sum() * (STATISTICS_TOTAL - codes) + 1
        likeliest = row.argmax()
        others = np.arange(codes) != likeliest
        assert (np.abs(frequencies - share)[others] < 1.001).all()
        assert -1e-6 <= frequencies[likeliest] - share[likeliest] < codes + 1


def test_statistics_of_nothing_and_of_one_code():
    assert statistics_from_counts(np.zeros((1, 2))).tolist() == [[32767, 1]]
    assert statistics_from_counts(np.zeros((1, 256))).sum() == STATISTICS_TOTAL
    assert statistics_from_counts([[1, 1]]).tolist() == [[16384, 16384]]


def test_every_shipped_codebook_still_reads():
    shipped = Path(__file__).parent.parent / "models" / "bundles"
    for path in sorted(shipped.glob("*/codebook.bin")):
        book = Codebook.load(path)
        assert bytes(book) == path.read_bytes()
        assert book == Codebook.load(path.with_suffix(".json"))
