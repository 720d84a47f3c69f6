"""The queue of what waits, on its own."""

from collections import Counter

import pytest

from protocol.broker_settings import BrokerSettings, Message
from protocol.connection import Connection
from protocol.outbox import Outbox


def test_outbox_overflow_takes_from_the_front_also_what_was_sent_before():
    box = Outbox(3)
    for n in range(3):
        box.put(Message("t", b"%d" % n, 1))
    for mid in range(3):
        box.sent(mid, box.take(10))
    assert len(box) == 3
    box.recall([Message("t", b"unwritten")])
    box.put(Message("t", b"new", 1))
    assert [m.payload for m in box.waiting] == [b"1", b"2", b"unwritten", b"new"]
    assert box.dropped == Counter(overflow=1)
    while box.take(10):
        pass
    assert box.resent == 3
    assert box.acknowledged(77) is None


def test_a_queue_of_nothing_and_a_client_without_a_name():
    with pytest.raises(ValueError, match="queue of 0"):
        Outbox(0)
    with pytest.raises(ValueError, match="identifier"):
        Connection(BrokerSettings(), "")
