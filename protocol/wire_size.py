"""How many bytes an MQTT PUBLISH packet takes on the wire, without building it.

=====================  ==========================================================================================
part                   bytes
=====================  ==========================================================================================
fixed header           1 (type and flags) + the remaining length as a variable byte integer (1–4)
topic                  2 + its UTF-8 bytes; 2 once a topic alias stands for it
packet identifier      2 with QoS 1, none with QoS 0
properties             MQTT 5 only: 1 (their length) + 3 for a topic alias (identifier 0x23, two bytes of value)
payload                as it is
=====================  ==========================================================================================

MQTT 3.1.1 section 3.3, MQTT 5.0 section 3.3. TCP, IP and TLS are not counted.

>>> publish_size("g/wrist", 100, qos=1, version=4, alias=False)
113
>>> publish_size("g/wrist", 100, qos=1, version=5, alias=False)
114
>>> publish_size("g/wrist", 100, qos=1, version=5, alias=True)
110
"""

from __future__ import annotations

from typing import Literal

ALIAS_PROPERTY_BYTES = 3
"""Topic Alias: one byte of identifier, two of value (MQTT 5.0, section 3.3.2.3.4)."""


def varint_size(value: int) -> int:
    """Return the bytes of a variable byte integer (MQTT 5.0, section 1.5.5): seven bits in each."""
    size = 1
    while value >= 128:
        value >>= 7
        size += 1
    return size


def publish_size(topic: str, payload: int, *, qos: int, version: Literal[4, 5], alias: bool) -> int:
    """Return the size of a PUBLISH packet in bytes.

    Args:
        topic: the topic of the message, also when an alias replaces it.
        payload: bytes of payload.
        qos: 0 or 1.
        version: the protocol level as CONNECT carries it: 4 is MQTT 3.1.1.
        alias: an *established* alias stands for the topic. The message that establishes it carries topic and
            property both: the size without an alias + :data:`ALIAS_PROPERTY_BYTES` (and a possible longer varint).
    """
    if alias and version != 5:
        msg = "topic aliases exist in MQTT 5 only"
        raise ValueError(msg)
    remaining = 2 + payload
    if not alias:
        remaining += len(topic.encode())
    if qos > 0:
        remaining += 2
    if version == 5:
        remaining += 1 + (ALIAS_PROPERTY_BYTES if alias else 0)
    return 1 + varint_size(remaining) + remaining
