"""JSON messages: strict, bounded, and refused with one error whatever arrives."""

import base64
import json

import pytest
from factories import codebook
from hostile_files import CODEBOOKS
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.messages import (
    MAX_MESSAGE_BYTES,
    UNKNOWN,
    Activity,
    Config,
    Debug,
    Label,
    Message,
    RawTrace,
    Status,
    now_ms,
)
from protocol.packet import MAX_SAMPLES
from quantization.codebook import MAX_CODEBOOK_BYTES
from quantization.errors import MessageError

STATUS = Status(
    state="online",
    source="device",
    codebook="ab" * 32,
    rate_hz=52.0,
    sensor="lsm6dso ±8 g",
    adc_bits=16,
    channels=["acc_x", "acc_y", "acc_z"],
    axes=(2, -1, 3),
    packets=2**53 - 1,
    dropped=0,
    bridge="shelf",
    error="codebook: no",
    time_ms=1_800_000_000_000,
)
CONFIG = Config(codebook=base64.b64encode(bytes(codebook())).decode(), axes=(1, 2, 3))
LABEL = Label(activity="stand up", from_tick=2**32 - 1, to_tick=20)
ACTIVITY = Activity(
    activity=UNKNOWN,
    likeliest="walking",
    probability=0.31,
    from_tick=0,
    to_tick=1000,
    from_ms=1_800_000_000_000,
    to_ms=1_800_000_001_000,
    latency_ms=3.25,
    model="wrist6@1",
    source="synthetic",
)
RAW = RawTrace(tick=7, lsb=[1 / 4096] * 16, offset=[0] * 16, counts=[[-(2**15)] * 16] * MAX_SAMPLES)
"""The longest: as many samples as a packet may have, of as many channels as a codebook may have."""
ALL = [
    *(STATUS, CONFIG, LABEL, ACTIVITY, RAW, Debug(raw_s=60)),
    *(Status(state="offline"), Config(), Label(activity="a", from_ms=0, to_ms=1)),
]
KINDS = [Status, Config, Label, Activity, Debug, RawTrace]


@pytest.mark.parametrize("message", ALL, ids=lambda m: type(m).__name__)
def test_round_trip(message):
    data = message.to_json()
    assert type(message).parse(data) == message
    assert b"null" not in data, "what is absent is left out"
    assert len(data) < MAX_MESSAGE_BYTES


@pytest.mark.parametrize(
    "body",
    [
        {"counts": [[1, 2], [3]]},
        {"counts": [[1, 2, 3]]},
        {"counts": []},
        {"counts": [[1, 2]] * (MAX_SAMPLES + 1)},
        {"counts": [[1, 2**16]]},
        {"counts": [[1, 2.5]]},
        {"lsb": [1.0]},
        {"lsb": [1.0, 0.0]},
        {"lsb": [1.0, 1e308]},
        {"offset": [0, 10**30]},
        {"debug": False},
    ],
)
def test_raw_samples_that_do_not_fit(body):
    good = {"tick": 0, "lsb": [1.0, 1.0], "offset": [0, 0], "counts": [[1, 2]]}
    assert RawTrace.parse(json.dumps(good).encode()).to_physical().tolist() == [[1.0, 2.0]]
    with pytest.raises(MessageError, match="json"):
        RawTrace.parse(json.dumps(good | body).encode())


@pytest.mark.parametrize("seconds", [0, 61, 1.5, "30", None])
def test_raw_samples_for_a_bounded_time_only(seconds):
    with pytest.raises(MessageError, match="json"):
        Debug.parse(json.dumps({"raw_s": seconds}).encode())


def changed(message: Message, **changes: object) -> bytes:
    return json.dumps(json.loads(message.to_json()) | changes).encode()


@pytest.mark.parametrize("message", ALL[:4], ids=lambda m: type(m).__name__)
def test_an_unknown_field_is_refused_by_name(message):
    with pytest.raises(MessageError, match="colour") as caught:
        type(message).parse(changed(message, colour="red"))
    assert caught.value.reason == "json"


NOT_MESSAGES = {
    "empty": b"",
    "space": b" ",
    "null": b"null",
    "number": b"7",
    "list": b"[]",
    "text": b'"online"',
    "two": b'{"state":"online"}{"state":"online"}',
    "trailing comma": b'{"state":"online",}',
    "cut off": b'{"state":"onl',
    "latin-1": b'{"state":"online","sensor":"\xb1 8 g"}',
    "utf-16": '{"state":"online"}'.encode("utf-16"),
    "overlong utf-8": b'{"state":"online","sensor":"\xc0\xaf"}',
    "encoded surrogate": b'{"state":"online","sensor":"\xed\xa0\x80"}',
    "lone surrogate": b'{"state":"online","sensor":"\\ud800"}',
    "nul": b'{"state":"online"}\0',
    "deep list": b"[" * 60_000,
    "deep object": b'{"state":' * 10_000,
    "deep inside": b'{"state":"online","axes":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "not a number": b'{"state":"online","rate_hz":NaN}',
    "infinite": b'{"state":"online","rate_hz":Infinity}',
    "overflow": b'{"state":"online","rate_hz":1e999}',
    "many digits": b'{"state":"online","packets":' + b"9" * 100_000 + b"}",
    "1 MB": b'{"state":"online","sensor":"' + b"x" * 2**20 + b'"}',
    "1 MB of spaces": b" " * 2**20,
    "1 MB of keys": b"{" + b",".join(b'"%d":0' % i for i in range(100_000)) + b"}",
}


@pytest.mark.parametrize("name", NOT_MESSAGES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_what_is_no_message(kind, name):
    with pytest.raises(MessageError) as caught:
        kind.parse(NOT_MESSAGES[name])
    assert caught.value.reason == ("length" if len(NOT_MESSAGES[name]) > MAX_MESSAGE_BYTES else "json")
    assert len(str(caught.value)) < 400, "nobody fills a log by sending a long field"


@settings(max_examples=200)
@given(st.sampled_from(KINDS), st.sampled_from(ALL), st.binary(max_size=6), st.integers(0, 400))
def test_damage_is_refused_or_reads_as_a_message(kind, message, noise, where):
    data = bytearray(message.to_json())
    data[where % len(data) : where % len(data) + len(noise)] = noise
    try:
        read = kind.parse(bytes(data))
    except MessageError:
        return
    assert kind.parse(read.to_json()) == read


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=300)
@given(st.sampled_from(ALL[:4]), st.data())
def test_any_json_in_any_field(message, data):
    field = data.draw(st.sampled_from(sorted(type(message).model_fields)))
    try:
        read = type(message).parse(changed(message, **{field: data.draw(JSON)}))
    except MessageError:
        return
    assert type(message).parse(read.to_json()) == read


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        (STATUS, {"state": "asleep"}),
        (STATUS, {"source": "oracle"}),
        (STATUS, {"codebook": "AB" * 32}),
        (STATUS, {"codebook": "ab" * 31}),
        (STATUS, {"codebook": "ab" * 32 + "\n"}),
        (STATUS, {"rate_hz": 0.5}),
        (STATUS, {"rate_hz": 1001}),
        (STATUS, {"adc_bits": 7}),
        (STATUS, {"adc_bits": 12.5}),
        (STATUS, {"channels": ["c"] * 17}),
        (STATUS, {"channels": ["c" * 65]}),
        (STATUS, {"axes": [1, 2]}),
        (STATUS, {"packets": -1}),
        (STATUS, {"packets": 2**53}),
        (STATUS, {"packets": 10**400}),
        (STATUS, {"dropped": 10**400}),
        (STATUS, {"error": "e" * 201}),
        (STATUS, {"time_ms": 2**53}),
        (STATUS, {"time_ms": -1}),
        (CONFIG, {"codebook": 5}),
        (CONFIG, {"axes": [1, 2, "x"]}),
        (LABEL, {"activity": ""}),
        (LABEL, {"activity": " walking"}),
        (LABEL, {"activity": "a" * 49}),
        (LABEL, {"activity": "<b>"}),
        (LABEL, {"activity": "walking\n"}),
        (LABEL, {"activity": "unknown"}),
        (LABEL, {"activity": "Unknown"}),
        (LABEL, {"from_tick": 2**32}),
        (LABEL, {"from_tick": -1}),
        (LABEL, {"from_tick": None}),
        (LABEL, {"from_ms": 1}),
        (LABEL, {"from_ms": 1, "to_ms": 2}),
        (ACTIVITY, {"probability": 1.01}),
        (ACTIVITY, {"probability": -0.01}),
        (ACTIVITY, {"latency_ms": -1}),
        (ACTIVITY, {"likeliest": "{}"}),
        (ACTIVITY, {"model": "m" * 65}),
    ],
)
def test_fields_out_of_bounds(message, changes):
    with pytest.raises(MessageError):
        type(message).parse(changed(message, **changes))


def test_a_label_needs_one_whole_range():
    for fields in ({}, {"from_tick": 1}, {"to_ms": 1}, {"from_tick": 1, "to_ms": 2}):
        with pytest.raises(MessageError, match="from_tick and to_tick"):
            Label.parse(json.dumps({"activity": "walking"} | fields).encode())


def test_a_codebook_travels_in_a_config():
    book = codebook()
    assert Config.parse(Config.with_codebook(book).to_json()).read_codebook() == book
    assert Config(axes=(1, 2, 3)).read_codebook() is None


@pytest.mark.parametrize(
    "text",
    ["%%%", "é", "AAA", "A" * 9, "", base64.b64encode(bytes(2 * MAX_CODEBOOK_BYTES)).decode()[:MAX_MESSAGE_BYTES]],
)
def test_codebooks_that_are_none(text):
    with pytest.raises(MessageError) as caught:
        Config(codebook=text).read_codebook()
    assert caught.value.reason == "codebook"


def test_a_field_of_the_senders_makes_no_lines_in_a_log():
    with pytest.raises(MessageError) as caught:
        Status.parse(b'{"state":"online","x\\nGATEWAY: all is well":1}')
    assert str(caught.value).isprintable()
    assert "all is well" in str(caught.value)


@pytest.mark.parametrize("name", sorted(CODEBOOKS))
def test_hostile_codebooks_in_a_config(name):
    data, expected = CODEBOOKS[name]
    config = Config.parse(json.dumps({"codebook": base64.b64encode(data).decode()}).encode())
    with pytest.raises(MessageError, match=expected) as caught:
        config.read_codebook()
    assert caught.value.reason == "codebook"


def test_the_largest_codebook_fits_a_message():
    assert len(base64.b64encode(bytes(MAX_CODEBOOK_BYTES))) + 100 < MAX_MESSAGE_BYTES


def test_messages_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        STATUS.state = "offline"


def test_now_is_in_milliseconds():
    assert 1_700_000_000_000 < now_ms() < 2**53
