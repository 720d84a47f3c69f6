"""What anybody may publish: none of it changes what a gateway does for a good device, and all of it is counted."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from stack import (
    PATIENCE_S,
    Answers,
    accepted,
    all_answered,
    fetch_metrics,
    made_by,
    more_from_each,
    new_gateway,
    note,
    patient_devices,
    serving,
    starts_of,
    streaming,
    synthetic,
    until,
    wrist6,
)

from models.bundle import Bundle, load_bundle
from protocol.connection import Connection
from protocol.packet import HEADER_BYTES, Coder, Packet
from protocol.topics import Kind, topic
from quantization.codebook import Codebook
from quantization.codec import packed_size
from quantization.errors import PacketError

__all__ = ["patient_devices", "wrist6"]

SAMPLES = 50


def is_packet(data: bytes) -> bool:
    try:
        Packet.from_bytes(data)
    except PacketError:
        return False
    return True


def sealed(data: bytes) -> bytes:
    """The bytes with the checksum that belongs to them, so that what follows it is looked at."""
    return next(made for crc in range(256) if not checksum_fails(made := data[:11] + bytes([crc]) + data[12:]))


def checksum_fails(data: bytes) -> bool:
    try:
        Packet.from_bytes(data)
    except PacketError as error:
        return error.reason == "checksum"
    return False


def with_burst(packet: bytes, rng: random.Random) -> bytes:
    """With up to eight neighbouring bits flipped of those that the CRC-8 covers: it finds any such burst."""
    covered = packet[: HEADER_BYTES - 1] + packet[HEADER_BYTES:]
    at, burst = rng.randrange(8 * len(covered) - 8), rng.randrange(1, 256)
    flipped = (int.from_bytes(covered, "big") ^ burst << at).to_bytes(len(covered), "big")
    return flipped[: HEADER_BYTES - 1] + packet[HEADER_BYTES - 1 : HEADER_BYTES] + flipped[HEADER_BYTES - 1 :]


def sound_packets(book: Codebook, rng: random.Random) -> list[bytes]:
    """One of noise, and one of a wearer at rest; with contexts, the latter is entropy coded."""
    shape = (SAMPLES, len(book.channels))
    noise = np.array([rng.randrange(2**book.bits) for _ in range(shape[0] * shape[1])], dtype=np.uint8).reshape(shape)
    rest = np.full(shape, 2 ** (book.bits - 1), dtype=np.uint8)
    packets = [Packet.from_codes(codes, book, sequence=7, tick_ms=7000) for codes in (noise, rest)]
    assert packets[0].coder is Coder.PLAIN
    assert (packets[1].coder is Coder.ENTROPY) == (book.contexts is not None)
    return [bytes(packet) for packet in packets]


def hostile_packets(book: Codebook, good: str, rng: random.Random) -> Iterator[tuple[str, bytes, str]]:
    """Topic, payload and the reason for which a gateway is to refuse it; ``book`` may be entropy coded or not."""
    sound = sound_packets(book, rng)
    whole = packed_size(SAMPLES, len(book.channels), book.bits)
    for n in range(500):
        noise = rng.randbytes(rng.randrange(13, 245))
        if not is_packet(noise):
            reason = "coder" if not checksum_fails(noise) else "checksum"
            yield topic(f"noise-{n % 50}", Kind.IMU), noise, reason
    for n in range(300):
        yield topic(f"noise-{n % 50}", Kind.IMU), rng.randbytes(rng.choice((0, 1, 12, 245, 300, 5000))), "length"
    for n in range(400):  # in the good device's own name
        yield topic(good, Kind.IMU), with_burst(sound[n % 2], rng), "checksum"
    for n in range(100):
        stranger = Packet(rng.randbytes(4), sequence=n, tick_ms=1000 * n, samples=SAMPLES, payload=rng.randbytes(whole))
        yield topic("stranger", Kind.IMU), bytes(stranger), "unknown_codebook"
        short = Packet(book.short_digest, sequence=n, tick_ms=0, samples=SAMPLES - 1, payload=rng.randbytes(whole))
        yield topic("short", Kind.IMU), bytes(short), "payload"
        reserved = sound[n % 2]
        reserved = reserved[:10] + bytes([reserved[10] | 0x80]) + reserved[11:]
        yield topic("coder", Kind.IMU), sealed(reserved), "coder"


def miscoded_packets(coded: Codebook, plain: Codebook, rng: random.Random) -> Iterator[tuple[str, bytes, str]]:
    """The same for what says that it is entropy coded, with a right checksum: with a codebook for it, and without."""
    sound = Packet.from_bytes(sound_packets(coded, rng)[1])
    whole = packed_size(SAMPLES, len(coded.channels), coded.bits)

    def miscoded(book: Codebook, n: int, payload: bytes) -> bytes:
        return bytes(
            Packet(book.short_digest, n, tick_ms=1000 * n, samples=SAMPLES, payload=payload, coder=Coder.ENTROPY)
        )

    for n in range(100):
        # Only the shortest form of codes is a payload (zeros are read behind its end), and only if it is below plain's.
        longer = sound.payload + bytes(rng.randrange(1, 20))
        yield topic("longer", Kind.IMU), miscoded(coded, n, longer), "payload"
        yield topic("wide", Kind.IMU), miscoded(coded, n, rng.randbytes(whole)), "payload"
        yield topic("plain", Kind.IMU), miscoded(plain, n, sound.payload), "coder"


def hostile_messages(rng: random.Random, limit: int) -> Iterator[tuple[str, bytes, str]]:
    """The same for everything that is no packet; ``limit`` is the largest payload that a broker passes."""
    garbage = [
        b" ", b"\xff\xfe\x00", b"{", b"null", b"[]", b'{"state": "dancing"}', b'{"state": "online", "rate_hz": 1e999}',
        b'{"state": "online", "packets": -1}', b'{"state": "online", "is_admin": true}', b"[" * 100_000,
        b'{"state": "online", "error": "' + b"x" * 100_000 + b'"}',
    ]  # fmt: skip
    for n in range(300):
        yield topic(f"teller-{n % 20}", Kind.STATUS), garbage[n % len(garbage)], "json"
    for name in ("{}", '{"activity": "unknown", "from_tick": 0, "to_tick": 5}', '{"activity": "x", "from_tick": 0}'):
        for n in range(50):
            yield topic(f"teller-{n % 20}", Kind.LABEL), name.encode(), "json"
    for _ in range(100):
        yield topic("teller-1", Kind.LABEL), b'{"activity": "x", "from_ms": 0, "to_ms": 99999999}', "label_range"
    for n in range(20):
        yield topic("large", Kind.STATUS if n % 2 else Kind.LABEL), rng.randbytes(limit - n), "length"
    for name in ("gateway/imu", "gateway/label", "a b/imu", f"{'x' * 33}/status", "/imu", "é/label", "$x/status"):
        for _ in range(40):
            yield f"gammawear/v1/{name}", rng.randbytes(40), "topic"


def unheard(rng: random.Random) -> Iterator[tuple[str, bytes, str]]:
    """Topics below ours that a gateway does not subscribe to."""
    for name in ("x", "w1/imu/more", "w1/command", "w1/IMU", "w1/config", "w1/activity", "a/b/c/d/e/f"):
        for _ in range(30):
            yield f"gammawear/v1/{name}", rng.randbytes(60), ""


async def test_hostile_traffic_disturbs_nobody(
    mosquitto: Any, wrist6: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(0)
    fleet = synthetic(wrist6, mosquitto.settings, 1, prefix="good")
    good = fleet.publishers[0].device.device_id
    largest = 262_144 - 64
    book, plain_book = wrist6.codebook, load_bundle("wrist6@1").codebook
    bad = [*hostile_packets(book, good, rng), *hostile_messages(rng, largest), *unheard(rng)]
    if book.contexts is not None:
        bad += miscoded_packets(book, plain_book, rng)
    rng.shuffle(bad)
    assert len(bad) >= 2000
    expected = Counter(reason for _, _, reason in bad if reason)

    gateway = new_gateway(mosquitto.settings, metrics_port=0)
    answers = Answers(gateway)
    enemy = Connection(mosquitto.settings, "enemy", queue_limit=len(bad), topic_aliases=False)

    def refused() -> Counter[str]:
        return gateway.pipeline.refusals.packets + gateway.pipeline.refusals.messages

    async with serving(gateway):
        attacking = asyncio.create_task(enemy.run())
        async with streaming(fleet):
            await more_from_each(gateway, fleet, 5)
            for at in range(0, len(bad), 100):
                for name, payload, _ in bad[at : at + 100]:
                    enemy.publish(name, payload, qos=at // 100 % 2)
                assert await enemy.flush(PATIENCE_S)
            await until(lambda: refused().total() >= expected.total())
            await more_from_each(gateway, fleet, 10)
        await enemy.stop()
        await attacking
        await until(lambda: accepted(gateway, fleet) == made_by(fleet))
        await all_answered(gateway)
        metrics = await fetch_metrics(gateway)
        live = gateway.summary()

    assert refused() == expected
    assert enemy.dropped == Counter()
    by_reason: Counter[str] = Counter()
    for series, value in metrics.items():
        if found := re.fullmatch(r'gammawear_rejected_(?:packets|messages)_total\{reason="(\w+)"\}', series):
            by_reason[found[1]] += int(value)
    assert +by_reason == expected, "and seen by Prometheus"
    assert (live.lost, live.duplicate, live.packets) == (0, 0, fleet.packets_made)
    assert answers.starts(good) == starts_of(fleet.publishers[0], wrist6)
    assert metrics["gammawear_broker_reconnects_total"] == 0
    assert len([one for one in caplog.records if "refused on" in one.message]) < 500, "said once a reason and device"
    note(len(bad), dict(expected))
