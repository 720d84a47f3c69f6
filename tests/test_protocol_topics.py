"""Topics and device ids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.topics import GATEWAY_ID, ROOT, Kind, check_device_id, every, parse, topic
from quantization.errors import MessageError

IDS = st.from_regex(r"[A-Za-z0-9_-]{1,32}", fullmatch=True)


@given(IDS, st.sampled_from(Kind))
def test_round_trip(device, kind):
    name = topic(device, kind)
    assert parse(name) == (device, kind)
    assert name == f"gammawear/v1/{device}/{kind.value}"
    assert len(name.encode()) <= 64


def test_kinds_are_those_of_the_table():
    assert [kind.value for kind in Kind] == [
        "imu", "status", "label", "config", "debug", "raw", "activity", "frame", "truth", "detections",
    ]  # fmt: skip
    assert every(Kind.IMU) == "gammawear/v1/+/imu"
    assert topic(GATEWAY_ID, Kind.STATUS) == "gammawear/v1/gateway/status"


@pytest.mark.parametrize(
    "device",
    [
        "",
        "a" * 33,
        "a/b",
        "+",
        "#",
        "a b",
        "a\0",
        "a\n",
        "\n",
        "é",
        "w1\u200b",
        "..",
        "$SYS",
        "\U0001d7d9",
        "a" * 10**6,
    ],
)
def test_ids_that_are_none(device):
    with pytest.raises(MessageError) as caught:
        check_device_id(device)
    assert caught.value.reason == "topic"
    assert len(str(caught.value)) < 400
    with pytest.raises(MessageError):
        topic(device, Kind.IMU)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "gammawear/v1/w1",
        "gammawear/v1/w1/",
        "gammawear/v1//imu",
        "gammawear/v1/w1/imu/",
        "/gammawear/v1/w1/imu",
        "gammawear/v2/w1/imu",
        "gammawear/v1/w1/IMU",
        "gammawear/v1/w1/imu\n",
        "gammawear/v1/w1/Kind.IMU",
        "gammawear/v1/+/imu",
        "gammawear/v1/#",
        "gammawear/v1/w\0/imu",
        "$SYS/v1/w1/imu",
        "x" * 65535,
        "/" * 65535,
    ],
)
def test_topics_that_are_not_ours(name):
    with pytest.raises(MessageError) as caught:
        parse(name)
    assert caught.value.reason == "topic"
    assert len(str(caught.value)) < 800


@given(st.text(max_size=60), st.text(max_size=10))
def test_other_text_is_refused_with_our_error_alone(middle, end):
    for name in (middle, f"{ROOT}/{middle}/{end}", f"{ROOT}/{middle}/imu"):
        try:
            device, kind = parse(name)
        except MessageError:
            continue
        assert topic(device, kind) == name
