"""Settings and messages that are refused when they are made."""

import pytest
from pydantic import ValidationError

from protocol.broker_settings import BrokerSettings, Message
from quantization.errors import MessageError


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"topic": "", "payload": b""}, "topic"),
        ({"topic": "a/+", "payload": b""}, "topic"),
        ({"topic": "#", "payload": b""}, "topic"),
        ({"topic": "a\0", "payload": b""}, "topic"),
        ({"topic": "a" * 65_536, "payload": b""}, "topic"),
        ({"topic": "a", "payload": b"", "qos": 2}, "qos"),
    ],
)
def test_a_message_that_cannot_be_sent(fields, reason):
    with pytest.raises(MessageError) as caught:
        Message(**fields)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "fields",
    [{"password": "x"}, {"ca_file": "ca.crt"}, {"tls": True, "key_file": "k"}, {"port": 0}, {"hots": "x"}],
)
def test_settings_that_do_not_fit_together(fields):
    with pytest.raises(ValidationError):
        BrokerSettings(**fields)
