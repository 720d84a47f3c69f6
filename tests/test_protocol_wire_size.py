"""The bytes of a PUBLISH, as computed and as a client sends them to a real mosquitto."""

from collections import Counter

import pytest
from proxy import PATIENCE_S, Inbox, Proxy, Signal, running, with_protocol

from protocol.connection import Connection
from protocol.wire_size import ALIAS_PROPERTY_BYTES, publish_size


@pytest.mark.parametrize("payload", [0, 1, 100, 122, 123, 124, 130, 16_400])
@pytest.mark.parametrize("qos", [0, 1])
async def test_publish_size_is_what_goes_over_the_wire(mosquitto, qos, payload):
    topic = "gammawear/v1/wräst"
    for version, aliases in ((5, True), (5, False), (4, False)):
        async with Proxy(mosquitto.port) as proxy:
            settings = with_protocol(proxy.settings, "5" if version == 5 else "3.1.1")
            publisher = Connection(settings, "writer", topic_aliases=aliases)
            async with running(publisher):
                for _ in range(3):
                    publisher.publish(topic, bytes(payload), qos)
                await publisher.flush(PATIENCE_S)
            sizes = [len(p) for p in proxy.publishes()]
        plain = publish_size(topic, payload, qos=qos, version=version, alias=False)
        if aliases:
            short = publish_size(topic, payload, qos=qos, version=5, alias=True)
            assert sizes[0] - plain in (ALIAS_PROPERTY_BYTES, ALIAS_PROPERTY_BYTES + 1)
            assert sizes[1:] == [short, short]
            assert short < plain
        else:
            assert sizes == [plain] * 3


def test_publish_size_knows_no_alias_before_mqtt_5():
    with pytest.raises(ValueError, match="MQTT 5 only"):
        publish_size("t", 1, qos=0, version=4, alias=True)


async def test_aliases_stay_within_what_the_broker_grants_and_begin_anew(mosquitto):
    inbox, connected = Inbox(), Signal()
    topics = [f"long/topic/{n}" for n in range(250)]  # the shipped configuration grants 200
    reader = Connection(
        mosquitto.settings, "reader", subscriptions=(("long/#", 1),), on_message=inbox, receive_maximum=1000
    )
    async with Proxy(mosquitto.port) as proxy:
        publisher = Connection(proxy.settings, "writer", on_connected=connected)
        async with running(reader, publisher):
            await connected.wait()
            for _ in range(2):
                for topic in topics:
                    publisher.publish(topic, b"x", 1)
            await publisher.flush(PATIENCE_S)
            without_topic = [p for p in proxy.publishes() if p[2:4] == b"\0\0"]
            assert len(without_topic) == 200
            proxy.cut()
            await connected.wait()
            publisher.publish(topics[0], b"x", 1)
            await inbox.holds(501)
            assert topics[0].encode() in proxy.publishes()[-1]
    assert Counter(m.topic for m in inbox.messages) == Counter(topics * 2) + Counter(topics[:1])
