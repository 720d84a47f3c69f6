"""What codes take on the wire, counted in real packets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from protocol.packet import HEADER_BYTES, Packet, encode_longest
from quantization.codebook import Codebook
from quantization.imu import Codes


@dataclass(frozen=True)
class Bandwidth:
    """Bytes of a stream.

    Args:
        values: samples times channels.
        packets: how many.
        payload: bytes of all payloads.
    """

    values: int
    packets: int
    payload: int

    @property
    def payload_bits(self) -> float:
        """Bits a sample and channel, without headers."""
        return 8 * self.payload / self.values

    @property
    def all_in_bits(self) -> float:
        """Bits a sample and channel, with our headers."""
        return 8 * (self.payload + HEADER_BYTES * self.packets) / self.values


def packets_of(codes: Codes, codebook: Codebook, packet_s: float) -> Iterator[Packet]:
    """``[n, C]`` codes of one recording as a device packs them: so many seconds each, fewer where bytes do not fit."""
    at, wanted = 0, max(1, int(packet_s * codebook.rate_hz + 1e-6))
    while at < len(codes):
        samples, coder, payload = encode_longest(codes[at : at + wanted], codebook)
        yield Packet(codebook.short_digest, 0, 0, samples, payload, coder)
        at += samples


def bandwidth(recordings: Iterable[Codes], codebook: Codebook, packet_s: float) -> Bandwidth:
    """Count the bytes of recordings, each ``[n, C]`` codes.

    Raises:
        ValueError: there is no sample.
    """
    values = packets = payload = 0
    for codes in recordings:
        values += codes.size
        for packet in packets_of(codes, codebook, packet_s):
            packets += 1
            payload += len(packet.payload)
    if not values:
        raise ValueError("no sample, no bandwidth")
    return Bandwidth(values, packets, payload)
