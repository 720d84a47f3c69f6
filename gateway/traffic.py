"""Bytes: what arrived, and what the same samples would have taken in other encodings.

Three levels are kept apart: *payload* (codes only), *packet* (with our 12-byte header) and *MQTT* (the PUBLISH packet
around it, with the topic in full or with an established topic alias, in MQTT 5). TCP, IP and TLS are not counted.

The rivals travel in as many PUBLISH packets on the same topics, with the topic in full:

* ``raw12``: our header and every value packed in 12 bits;
* ``float32``: our header and every value in 4 bytes;
* ``json``: no header of ours but the object ``{"tick":T,"seq":S,"values":[[...],...]}``, compact, one inner array a
  sample, every value in g or °/s with three decimals. Its size is exact for the values that the codes stand for.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protocol.packet import HEADER_BYTES, Packet
from protocol.wire_size import publish_size
from quantization.codebook import Codebook
from quantization.imu import Codes

RAW_BITS: Final = 12
"""What the quantizer of the paper starts from, and what a BMA400 gives."""
FLOAT_BYTES: Final = 4
_JSON_FIXED: Final = len('{"tick":,"seq":,"values":[]}')


class JsonSize:
    """Exact size of a packet's samples as JSON (see the module) without writing it.

    >>> book = Codebook(("acc_x",), 1, 50.0, thresholds=np.array([[0.0]]), levels=np.array([[-1.0, 1.0]]))
    >>> JsonSize(book)(np.array([[0], [1]], dtype=np.uint8), tick=40, sequence=7)  # ...,"values":[[-1.000],[1.000]]}
    47
    """

    def __init__(self, codebook: Codebook) -> None:
        self._width = codebook.levels.shape[1]
        self._table: NDArray[np.int64] = np.array([len(f"{level:.3f}") for level in codebook.levels.ravel()])
        self._base = np.arange(len(codebook.channels), dtype=np.intp) * self._width

    def __call__(self, codes: Codes, *, tick: int, sequence: int) -> int:
        """Bytes for ``[n, C]`` codes."""
        samples, channels = codes.shape
        digits = int(self._table.take(codes + self._base).sum())
        brackets_and_commas = samples * (channels + 1) + samples - 1
        return _JSON_FIXED + len(str(tick)) + len(str(sequence)) + digits + brackets_and_commas


@functools.lru_cache(maxsize=4096)
def publish_bytes(topic_bytes: int, payload: int, qos: int, *, alias: bool) -> int:
    """:func:`protocol.wire_size.publish_size` in MQTT 5, by the topic's length, remembered."""
    return publish_size("t" * topic_bytes, payload, qos=qos, version=5, alias=alias)


@functools.lru_cache(maxsize=64)
def _json_size(codebook: Codebook) -> JsonSize:
    return JsonSize(codebook)


@dataclass(slots=True)
class Traffic:
    """Totals over packets that were received and decoded (duplicates included: they were sent)."""

    packets: int = 0
    samples: int = 0
    values: int = 0
    payload_bytes: int = 0
    packet_bytes: int = 0
    mqtt_topic_bytes: int = 0
    mqtt_alias_bytes: int = 0
    raw12_bytes: int = 0
    float32_bytes: int = 0
    json_bytes: int = 0

    def bits_per_value(self, level: str) -> float | None:
        """Bits that one sample of one channel took.

        Args:
            level: ``payload``, ``packet``, ``mqtt_topic`` or ``mqtt_alias``.

        Returns:
            None before the first packet.
        """
        total: int = getattr(self, f"{level}_bytes")
        return total * 8 / self.values if self.values else None

    def compression(self, rival: str) -> float | None:
        """How many times as many MQTT bytes (topic in full) ``raw12``, ``float32`` or ``json`` would have taken."""
        total: int = getattr(self, f"{rival}_bytes")
        return total / self.mqtt_topic_bytes if self.mqtt_topic_bytes else None


RECENT: Final = 0.95
"""A device's rates forget by 5 % a packet: they show the last twenty."""


@dataclass(slots=True)
class RecentTraffic:
    """One device's bytes per second of signal, over its last packets."""

    ms: float = 0.0
    packets: float = 0.0
    values: float = 0.0
    packet: float = 0.0
    mqtt: float = 0.0
    raw12: float = 0.0

    def per_second(self, name: str) -> float:
        """Bytes of ``packet``, ``mqtt`` or ``raw12`` per second of signal; 0 before the first packet."""
        total: float = getattr(self, name)
        return total * 1000 / self.ms if self.ms else 0.0


class Meter:
    """Counts each packet into the totals and into its device's recent figures.

    Attributes:
        totals: of all devices.
    """

    def __init__(self) -> None:
        self.totals = Traffic()

    def count(
        self,
        packet: Packet,
        codes: Codes,
        codebook: Codebook,
        recent: RecentTraffic,
        *,
        topic_bytes: int,
        qos: int,
        period_ms: float,
    ) -> None:
        """Count one packet, decoded to ``[n, C]`` codes."""
        samples, channels = codes.shape
        values = samples * channels
        payload = len(packet.payload)
        mqtt = publish_bytes(topic_bytes, HEADER_BYTES + payload, qos, alias=False)
        raw12 = publish_bytes(topic_bytes, HEADER_BYTES + (values * RAW_BITS + 7) // 8, qos, alias=False)
        json_bytes = _json_size(codebook)(codes, tick=packet.tick_ms, sequence=packet.sequence)
        totals = self.totals
        totals.packets += 1
        totals.samples += samples
        totals.values += values
        totals.payload_bytes += payload
        totals.packet_bytes += HEADER_BYTES + payload
        totals.mqtt_topic_bytes += mqtt
        totals.mqtt_alias_bytes += publish_bytes(topic_bytes, HEADER_BYTES + payload, qos, alias=True)
        totals.raw12_bytes += raw12
        totals.float32_bytes += publish_bytes(topic_bytes, HEADER_BYTES + values * FLOAT_BYTES, qos, alias=False)
        totals.json_bytes += publish_bytes(topic_bytes, json_bytes, qos, alias=False)
        recent.ms = recent.ms * RECENT + samples * period_ms
        recent.packets = recent.packets * RECENT + 1
        recent.values = recent.values * RECENT + values
        recent.packet = recent.packet * RECENT + HEADER_BYTES + payload
        recent.mqtt = recent.mqtt * RECENT + mqtt
        recent.raw12 = recent.raw12 * RECENT + raw12
