"""Counts to codes to bytes and back: what a device does to a sample, in integers alone.

Packed layout, for b-bit codes of C channels: sample by sample, channel by channel, each code least significant bit
first into the stream; bit *i* of the stream is bit ``i % 8`` (0 = least significant) of byte ``i // 8``; the last byte
is filled with zero bits. Four-bit codes therefore stand with the earlier one in the low nibble.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from quantization.codebook import Codebook
from quantization.errors import CodebookError
from quantization.imu import Codes, Counts
from quantization.sensor import Sensor


class Encoder:
    """A codebook made ready for one part. Cheap to call, immutable, shared by every device with that part.

    A microcontroller searches the integer thresholds (four comparisons at 4 bits); here the same thresholds are
    unrolled into one table of codes per count, because one lookup is what numpy does fastest.

    >>> part = Sensor.symmetric("demo", ("acc_x",), adc_bits=8, full_scale={"acc": 1.0})
    >>> book = Codebook(("acc_x",), 1, 50.0, thresholds=np.array([[0.25]]), levels=np.array([[0.0, 0.5]]))
    >>> Encoder(book, part).encode(np.array([[31], [32]], dtype=np.int32)).ravel().tolist()
    [0, 1]
    """

    def __init__(self, codebook: Codebook, sensor: Sensor) -> None:
        """Derive the integer thresholds.

        Raises:
            CodebookError: the part measures other channels than the codebook.
        """
        self.codebook: Final = codebook
        self.sensor: Final = sensor
        self.thresholds: Final = codebook.thresholds_for(sensor)
        counts = sensor.all_counts()
        rows = [np.searchsorted(row, counts, side="right") for row in self.thresholds]
        self._table: Final[Codes] = np.concatenate(rows).astype(np.uint8)
        # Column c looks up at c * 2**adc_bits + (count - count_min): one flat take for all channels.
        self._base: Final = np.arange(len(rows), dtype=np.int32) * np.int32(2**sensor.adc_bits) - sensor.count_min

    def encode(self, counts: Counts) -> Codes:
        """``[n, C]`` counts to ``[n, C]`` codes.

        Raises:
            CodebookError: a count that the sensor's ADC cannot give, or another number of channels.
        """
        if counts.ndim != 2 or counts.shape[1] != len(self.codebook.channels):
            raise CodebookError(f"a block is [n, {len(self.codebook.channels)}], not {counts.shape}")
        if counts.size and not self.sensor.count_min <= counts.min() <= counts.max() <= self.sensor.count_max:
            bits = self.sensor.adc_bits
            raise CodebookError(f"counts run from {counts.min()} to {counts.max()}: more than {bits} bits")
        return self._table.take(counts + self._base)


def network_input(codes: Codes, bits: int) -> NDArray[np.float32]:
    """What a recognition network sees of a code: ``2k / (2^b - 1) - 1``, evenly spaced in [-1, 1].

    The network works in the companded domain, as in γ-Quant (arXiv 2509.22448), where the levels are equally far apart:
    it needs no table, only the code.

    >>> network_input(np.array([[0, 15]], dtype=np.uint8), 4).tolist()
    [[-1.0, 1.0]]
    """
    top = np.float32(2**bits - 1)
    scaled: NDArray[np.float32] = codes.astype(np.float32) * np.float32(2) / top - np.float32(1)
    return scaled


def packed_size(samples: int, channels: int, bits: int) -> int:
    """Bytes that ``samples`` × ``channels`` codes take.

    >>> packed_size(52, 6, 4)
    156
    """
    return (samples * channels * bits + 7) // 8


def pack(codes: Codes, bits: int) -> bytes:
    """``[n, C]`` codes to the packed layout.

    Raises:
        CodebookError: a code that takes more than ``bits``; it would run into its neighbour.
    """
    if codes.size and codes.max() >> bits:
        raise CodebookError(f"a code of {codes.max()} takes more than {bits} bits")
    if bits == 8:
        return codes.tobytes()
    flat = codes.reshape(-1)
    if bits == 4:
        if flat.size % 2:
            flat = np.append(flat, np.uint8(0))
        return (flat[0::2] | (flat[1::2] << 4)).tobytes()
    stream = np.unpackbits(flat[:, None], axis=1, count=bits, bitorder="little")
    return np.packbits(stream.reshape(-1), bitorder="little").tobytes()


def unpack(data: bytes, samples: int, channels: int, bits: int) -> Codes:
    """The packed layout to ``[samples, channels]`` codes.

    Raises:
        CodebookError: another length than the samples take, or padding that is not zero.
    """
    expected = packed_size(samples, channels, bits)
    if len(data) != expected:
        block = f"{samples} samples of {channels} channels at {bits} bits"
        raise CodebookError(f"{len(data)} bytes; {block} take {expected}")
    raw = np.frombuffer(data, dtype=np.uint8)
    total = samples * channels
    if total * bits % 8 and raw[-1] >> (total * bits % 8):
        raise CodebookError("the padding after the last code is not zero")
    if bits == 8:
        return raw.reshape(samples, channels).copy()
    if bits == 4:
        flat = np.empty(2 * raw.size, dtype=np.uint8)
        flat[0::2] = raw & 0x0F
        flat[1::2] = raw >> 4
        return flat[:total].reshape(samples, channels)
    stream = np.unpackbits(raw, count=total * bits, bitorder="little").reshape(total, bits)
    return np.packbits(stream, axis=1, bitorder="little").reshape(samples, channels)
