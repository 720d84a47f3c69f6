"""The emulated radio: its limits and its faults."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from device_emulator.link import Link, LinkSettings
from protocol.packet import MAX_PAYLOAD_BYTES

PACKETS = [n.to_bytes(2, "little") for n in range(2000)]


def carry(link, packets=PACKETS):
    arrived = [one for n, packet in enumerate(packets) for one in link.send(n * 1000 + 981, packet)]
    return [*arrived, *link.flush(len(packets) * 1000)]


@given(st.integers(23, 517))
def test_what_fits_one_notification(mtu):
    payload = LinkSettings(mtu=mtu).max_payload_bytes
    assert 8 <= payload <= MAX_PAYLOAD_BYTES
    assert payload + 12 + 3 <= mtu


def test_a_good_link_delivers_all_at_connection_events():
    arrived = carry(Link(LinkSettings(connection_interval_ms=45.0)))
    assert [one.packet for one in arrived] == PACKETS
    for n, one in enumerate(arrived):
        assert one.at_ms % 45 == 0
        assert 0 <= one.at_ms - (n * 1000 + 981) < 45


def test_faults_have_the_share_that_was_asked_for():
    link = Link(LinkSettings(loss=0.1, duplicate=0.05, reorder=0.02, seed=1))
    arrived = [one.packet for one in carry(link)]
    assert 150 < link.lost < 250
    assert 60 < link.duplicated < 130
    assert 15 < link.reordered < 60
    assert len(arrived) == len(PACKETS) - link.lost + link.duplicated
    assert len(set(arrived)) == len(PACKETS) - link.lost
    assert arrived != sorted(arrived)


def test_one_seed_one_fate():
    settings = LinkSettings(loss=0.1, duplicate=0.1, reorder=0.1, seed=7)
    assert carry(Link(settings)) == carry(Link(settings))
    assert carry(Link(settings)) != carry(Link(settings.model_copy(update={"seed": 8})))


@given(
    loss=st.floats(0, 1), duplicate=st.floats(0, 1), reorder=st.floats(0, 1), seed=st.integers(0, 99),
    steps=st.lists(st.integers(0, 3000), min_size=1, max_size=50),
)  # fmt: skip
def test_times_never_fall_and_nothing_is_invented(loss, duplicate, reorder, seed, steps):
    link = Link(LinkSettings(loss=loss, duplicate=duplicate, reorder=reorder, seed=seed))
    now, times, arrived = 0, [], []
    for n, step in enumerate(steps):
        now += step
        for one in link.send(now, bytes([n])):
            assert one.at_ms >= now
            times.append(one.at_ms)
            arrived.append(one.packet)
    arrived += [one.packet for one in link.flush(now)]
    assert times == sorted(times)
    assert len(arrived) == len(steps) - link.lost + link.duplicated
    assert set(arrived) <= {bytes([n]) for n in range(len(steps))}


@pytest.mark.parametrize(
    "wrong", [{"mtu": 22}, {"mtu": 518}, {"connection_interval_ms": 7.4}, {"loss": 1.1}, {"latency": 1}]
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValidationError):
        LinkSettings(**wrong)
