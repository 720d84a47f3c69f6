"""Who may publish and read what at the broker as we ship it: each account, topic, QoS, and both versions of MQTT."""

from __future__ import annotations

import asyncio
import re
from typing import Literal

import pytest
from proxy import PATIENCE_S, running
from secure_site import (
    ACCOUNTS,
    CAMERA,
    DEPLOY,
    OTHER,
    STRAP,
    WEARABLE,
    Site,
    certificates,
    heard_until_end,
    site,
    with_device,
)
from stack import Listener, until

from protocol.broker_settings import Message
from protocol.connection import Connection, Received
from protocol.topics import Kind, every, topic

__all__ = ["certificates", "site"]


IDS = (*ACCOUNTS, STRAP, "stranger")
DATA = (Kind.IMU, Kind.STATUS, Kind.LABEL, Kind.FRAME, Kind.TRUTH, Kind.RAW)
ANSWERS = (Kind.ACTIVITY, Kind.DETECTIONS)

Topics = set[str]


def topics(ids: tuple[str, ...], kinds: tuple[Kind, ...], *, but: str = "") -> Topics:
    return {topic(one, kind) for one in ids for kind in kinds if one != but}


EVERYTHING = topics(IDS, tuple(Kind))
WRITES = {
    "gateway": topics(IDS, ANSWERS)
    | topics(IDS, (Kind.LABEL, Kind.DEBUG), but="gateway")
    | {"gammawear/v1/gateway/status"},
    "operator": topics(IDS, (Kind.CONFIG,), but="operator"),
    "viewer": set(),
    "bridge": topics((STRAP,), (Kind.IMU, Kind.STATUS, Kind.LABEL)) | {"gammawear/v1/bridge/status"},
    **{one: topics((one,), DATA) for one in (WEARABLE, OTHER, CAMERA)},
}
READS = {
    "gateway": topics(IDS, DATA, but="gateway") | {"gammawear/v1/gateway/status"},
    "operator": topics(IDS, (Kind.CONFIG, Kind.STATUS), but="operator"),
    "viewer": topics(IDS, (*ANSWERS, Kind.STATUS), but="viewer"),
    "bridge": topics((STRAP,), (Kind.CONFIG,)),
    **{one: topics((one,), (Kind.CONFIG, Kind.DEBUG)) for one in (WEARABLE, OTHER, CAMERA)},
}


@pytest.mark.parametrize("account", ACCOUNTS)
async def test_each_publishes_its_own_and_nothing_else(
    site: Site, account: str, caplog: pytest.LogCaptureFixture
) -> None:
    ways: list[tuple[Literal["5", "3.1.1"], int]] = [("5", 1), ("5", 0), ("3.1.1", 1), ("3.1.1", 0)]
    refused = EVERYTHING - WRITES[account]
    assert refused
    async with site.watcher() as watcher:
        for protocol, qos in ways:
            publisher = Connection(site.settings(account, protocol=protocol), "any-client-id")
            caplog.clear()
            async with running(publisher):
                for name in sorted(EVERYTHING):
                    publisher.publish(name, b"x", qos)
                publisher.publish("elsewhere", b"", 1)  # acknowledged after all before it
                assert await publisher.flush(PATIENCE_S)
                assert set(await heard_until_end(watcher)) == WRITES[account], (protocol, qos)
                # QoS 0 has no answer, and MQTT 3.1.1 knows none that says no: there, only MQTT 5 with QoS 1 is told.
                told = protocol == "5"
                assert publisher.dropped["refused"] == told + (len(refused) if told and qos else 0)
                assert publisher.acked == (len(EVERYTHING) + 1 if qos else 1)
                assert (publisher.resent, publisher.reconnects, publisher.connected) == (0, 0, True)
            notes = [record.message for record in caplog.records if "refused a message" in record.message]
            assert len(notes) == told, "said once"
            assert all("reason code 0x87" in note for note in notes)


@pytest.mark.parametrize("account", ACCOUNTS)
async def test_each_reads_its_own_and_nothing_else(site: Site, account: str) -> None:
    """Also with `#`, also what is retained: for a subscription is granted, and messages are not."""
    filters = ("#", "gammawear/v1/+/+", *(every(kind) for kind in Kind))
    last = min(READS[account])
    async with site.watcher() as publisher:
        live = Listener(site.settings(account), *filters)
        async with live:
            for name in sorted(EVERYTHING):
                publisher.connection.publish(name, b"x", 1, retain=True)
            publisher.connection.publish(last, b"end", 1)
            await until(lambda: live.heard and live.heard[-1].payload == b"end")
        assert {one.topic for one in live.heard} == READS[account]
        assert not any(one.retain for one in live.heard)
        late = Listener(site.settings(account), *filters)
        async with late:
            publisher.connection.publish(last, b"end", 1)
            await until(lambda: late.heard and late.heard[-1].payload == b"end")
        assert {one.topic for one in late.heard if one.retain} == READS[account]
        assert {one.topic for one in late.heard} == READS[account]


async def test_a_will_speaks_for_its_account_only(site: Site) -> None:
    async with site.watcher() as watcher:
        for name in (topic(OTHER, Kind.STATUS), topic("gateway", Kind.STATUS), topic(WEARABLE, Kind.STATUS)):
            will = Message(name, b"the will", 1, retain=True)
            async with running(Connection(site.settings(WEARABLE), "x", will=will), stop=False):
                pass
        await until(lambda: watcher.heard)  # they go in the order in which the connections went
        assert set(await heard_until_end(watcher)) == {topic(WEARABLE, Kind.STATUS)}


@pytest.mark.parametrize("account", ["+", "+#", "wrist-01+", "wrist-01/imu"])
async def test_a_name_with_a_wildcard_or_a_level_gets_nowhere(site: Site, account: str) -> None:
    async with site.watcher() as watcher:
        thief = Listener(site.settings(account), "#")
        async with thief:
            for name in sorted(EVERYTHING):
                watcher.connection.publish(name, b"from the watcher", 1)
                thief.connection.publish(name, b"from the thief", 1)
            assert await watcher.connection.flush(PATIENCE_S)
            assert await thief.connection.flush(PATIENCE_S)
            assert thief.connection.dropped["refused"] == len(EVERYTHING)
        heard = await heard_until_end(watcher)
        assert {payload for payloads in heard.values() for payload in payloads} == {b"from the watcher"}
        assert thief.heard == []


async def test_nobody_takes_the_session_of_another(site: Site) -> None:
    """A client id is the account's name, so that the gateway is neither thrown out nor robbed of what waits for it."""
    ends: list[str] = []

    def gateway(client_id: str) -> Connection:
        return Connection(
            site.settings("gateway"), client_id, clean=False, subscriptions=((every(Kind.IMU), 1),),
            on_message=heard.append, on_disconnected=ends.append,
        )  # fmt: skip

    heard: list[Received] = []
    thief: list[Received] = []
    names = ("gammawear-gateway", "gateway")
    async with running(gateway(names[0])):
        for name in names:
            posing = Connection(site.settings(OTHER), name, subscriptions=(("#", 1),), on_message=thief.append)
            async with running(posing):
                assert not posing.session_present
                assert ends == []
    device = Connection(site.settings(WEARABLE), "x")
    async with running(device):
        device.publish(topic(WEARABLE, Kind.IMU), b"waits", 1)
        assert await device.flush(PATIENCE_S)
    for name in names:
        async with running(Connection(site.settings(OTHER), name, on_message=thief.append)):
            pass
    await site.broker.stop()
    await site.broker.start()  # sessions that were read from the disk have their rights, too
    back = gateway("another name")
    async with running(back):
        await until(lambda: heard)
        assert back.session_present
    assert [one.payload for one in heard] == [b"waits"]
    assert thief == []


async def test_a_device_that_joins_a_bridge_needs_no_restart(site: Site) -> None:
    bridge = Connection(site.settings("bridge"), "x")
    async with site.watcher() as watcher, running(bridge):
        bridge.publish(topic("stranger", Kind.IMU), b"early", 1)
        assert await bridge.flush(PATIENCE_S)
        acl = site.folder / "acl"
        acl.write_text(with_device(acl.read_text(), "stranger"))
        site.reload()

        async with asyncio.timeout(PATIENCE_S):
            while bridge.dropped["refused"] == bridge.acked:  # until one was taken
                bridge.publish(topic("stranger", Kind.IMU), b"late", 1)
                assert await bridge.flush(PATIENCE_S)
        assert set((await heard_until_end(watcher))[topic("stranger", Kind.IMU)]) == {b"late"}
        assert bridge.reconnects == 0


def test_the_list_names_our_topics_and_no_others() -> None:
    """A kind that is added to the topics has to be given to somebody, and a misspelt one is seen."""
    acl = (DEPLOY / "acl").read_text(encoding="utf-8")
    rules = re.findall(r"^(?:#\+)?(?:topic|pattern) (read|write|readwrite|deny) (\S+)$", acl, re.MULTILINE)
    lines = [line for line in acl.splitlines() if line.startswith(("topic", "pattern", "#+"))]
    assert len(rules) == len(lines)
    kinds = set()
    for _, name in rules:
        root, version, who, kind = name.split("/")
        assert (root, version) == ("gammawear", "v1")
        assert who in {"+", "%u", "DEVICE", *re.findall(r"^user (\S+)$", acl, re.MULTILINE)}
        kinds.add(kind)
    assert kinds - {"#"} == set(Kind)


def test_whoever_has_a_role_is_no_device() -> None:
    """The patterns are for all: a block without `deny` for its own data would make a device of its account."""
    acl = (DEPLOY / "acl").read_text(encoding="utf-8")
    blocks = re.split(r"^user ", acl.split("# --- Devices")[0], flags=re.MULTILINE)[1:]
    assert [block.split("\n", 1)[0] for block in blocks] == ["gateway", "operator", "viewer", "bridge"]
    for block in blocks:
        name = block.split("\n", 1)[0]
        denied = set(re.findall(rf"^topic deny gammawear/v1/{name}/(\S+)$", block, re.MULTILINE))
        assert denied == {"#"} or denied == {*DATA, Kind.CONFIG, Kind.DEBUG} - {Kind.STATUS}, name
