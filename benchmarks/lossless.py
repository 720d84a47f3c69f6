"""What lossless compression makes of the 12-bit stream: what lossy codes have to be compared with.

    python -m benchmarks.lossless --data ../shared/data/har    # writes benchmarks/results/lossless.json

The stream is what the ADC of a task's sensor gives of all its recordings at a rate (activities that the task is not to
know are left out). It is cut into packets of 1 s and 2 s that decode alone, as ours do; what is left at the end of a
segment is dropped. Where the recordings are longer than ``--minutes``, the middle of every segment is taken, the same
share of each.

Everything leans to the comparators' side: compressors run without their containers (magic numbers, checksums, names: 18
bytes of a gzip file), a message of any length pays for one header and one PUBLISH packet (ours ends at 244 bytes), and
``packet_s: null`` is one file for each person, which nobody could send live.

Bits are per sample and channel: of the payload; *all-in*, with our header of 12 bytes for each packet (JSON has its own
time stamps and pays none); and of the MQTT 5 PUBLISH packet at QoS 0, topic in full. TCP, IP and TLS are not counted.
Needs ``zstandard``.
"""

from __future__ import annotations

import argparse
import json
import lzma
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import zstandard
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.grid import ARCHIVES
from benchmarks.machine import RESULTS, commit, machine
from models.tasks import TASKS, load_material
from protocol.packet import HEADER_BYTES
from protocol.topics import Kind, topic
from protocol.wire_size import publish_size
from quantization.errors import DatasetError
from quantization.imu import Counts
from quantization.sensor import Sensor

ADC_BITS: Final = 12
PACKETS_S: Final = (1.0, 2.0)
RATES_HZ: Final = {
    "sp_sw_har": (100.0, 50.0, 25.0, 12.5, 10.0),
    "sp_sw_har_phone": (50.0,),
    "wisdm2019_watch": (20.0, 10.0),
    "wisdm2019_watch_6axis": (20.0,),
    "casale_chest": (52.0,),
    "weda_fall": (25.0,),
}
"""Data sets whose archive is called otherwise than they are."""
MINUTES: Final = 240.0
ORDER_BITS: Final = 2
K_BITS: Final = 4
VERBATIM: Final = 2**K_BITS - 1
"""This k says that the channel's samples follow as they are, 12 bits each."""
EPOCH_MS: Final = 1_760_000_000_000
"""JSON carries Unix time; any present one has 13 digits."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Coder:
    """One way to send samples.

    Args:
        size: bytes of the payload that ``[n, channels]`` counts take.
        about: what it does, for people.
        packets_s: lengths of packets to try.
        whole: try whole files, too.
        header: bytes of header for each packet.
    """

    size: Callable[[Counts], int]
    about: str
    packets_s: tuple[float, ...] = PACKETS_S
    whole: bool = False
    header: int = HEADER_BYTES


# -- Rice -------------------------------------------------------------------------------------------------------------


def zigzag(values: NDArray[Any]) -> Ints:
    """Signed to unsigned, small to small: 0, -1, 1, -2, 2 become 0, 1, 2, 3, 4."""
    wide = values.astype(np.int64)
    return (wide << 1) ^ (wide >> 63)


def rice_encode(counts: Counts, orders: Sequence[int]) -> bytes:
    """Code ``[n, channels]`` counts of 12 bits with fixed linear predictors and Rice codes; most significant bit first.

    Per channel: 2 bits of order where there is a choice of ``orders``; 4 bits of k; order samples of 12 bits; then the
    residuals, that is the order-th difference, as Rice codes of their zigzag numbers: the quotient by 2^k in zeros, a
    one, k bits of remainder. k = 15 says that all n samples follow in 12 bits each. Order and k are the best of all.
    Zeros fill the last byte.

    As the fixed predictors and the coded residual of FLAC (RFC 9639, sections 9.2.5 and 9.2.7) with one partition.
    Orders (0, 1, 2, 3) are those of Shorten, (1,) is delta coding.
    """
    shifts = np.arange(VERBATIM)[:, None, None]
    residuals = [zigzag(np.diff(counts, n=order, axis=0)) for order in orders]
    # Bits by order, k and channel.
    costs = np.stack(
        [
            (residual >> shifts).sum(axis=1) + (1 + shifts[:, 0]) * len(residual) + ADC_BITS * order
            for order, residual in zip(orders, residuals, strict=True)
        ]
    )
    text = []
    for channel in range(counts.shape[1]):
        which, k = divmod(int(costs[:, :, channel].argmin()), VERBATIM)
        plain = costs[which, k, channel] >= ADC_BITS * len(counts)
        first = counts[: len(counts) if plain else orders[which], channel].tolist()
        if len(orders) > 1:
            text.append(f"{orders[which]:0{ORDER_BITS}b}")
        text.append(f"{VERBATIM if plain else k:0{K_BITS}b}")
        text += [f"{value & 0xFFF:0{ADC_BITS}b}" for value in first]
        if not plain:
            one, low = 1 << k, (1 << k) - 1
            # The zeros of the quotient are the padding of a number that begins with its one.
            text += [f"{one | v & low:0{(v >> k) + k + 1}b}" for v in residuals[which][:, channel].tolist()]
    bits = "".join(text)
    size = -(-len(bits) // 8)
    return int(bits.ljust(8 * size, "0"), 2).to_bytes(size, "big")


# -- compressors ------------------------------------------------------------------------------------------------------


def int16(counts: Counts) -> bytes:
    """``[n, channels]`` counts, sample by sample, little-endian."""
    return counts.astype("<i2").tobytes()


def delta_planes(counts: Counts) -> bytes:
    """Differences along each channel as zigzag numbers, channel by channel: all low bytes, then all high ones."""
    numbers = zigzag(np.diff(counts, axis=0, prepend=np.zeros((1, counts.shape[1]), counts.dtype))).T.astype(np.uint16)
    return (numbers & 0xFF).astype(np.uint8).tobytes() + (numbers >> 8).astype(np.uint8).tobytes()


def deflate(data: bytes) -> bytes:
    """What ``gzip -6`` has between its header and its trailer."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def zstd(data: bytes) -> bytes:
    """``zstd -19`` for input of this size, without magic number and checksum."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        19, source_size=len(data), format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_checksum=0
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def xz(data: bytes) -> bytes:
    """What ``xz -6`` has in its block: LZMA2."""
    # A dictionary longer than the data costs memory and time, and changes no bit.
    size = max(4096, len(data))
    return lzma.compress(data, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": size}])


def json_message(counts: Counts, sensor: Sensor, rate_hz: float) -> bytes:
    """Samples as an array of objects: Unix time in ms, then g and °/s to 4 decimals; no spaces."""
    kinds: dict[str, list[int]] = {}
    for column, channel in enumerate(sensor.channels):
        kinds.setdefault(channel.split("_", maxsplit=1)[0], []).append(column)
    physical = np.round(sensor.to_physical(counts), 4).tolist()
    samples = [
        {"t": EPOCH_MS + round(1000 * index / rate_hz)} | {kind: [row[c] for c in at] for kind, at in kinds.items()}
        for index, row in enumerate(physical)
    ]
    return json.dumps(samples, separators=(",", ":")).encode()


def coders(sensor: Sensor, rate_hz: float) -> dict[str, Coder]:
    """All comparators, by name."""

    def packed(bits: int) -> Callable[[Counts], int]:
        return lambda counts: -(-counts.size * bits // 8)

    found = {
        "json": Coder(
            lambda counts: len(json_message(counts, sensor, rate_hz)),
            "JSON array of {t, acc, gyro}, 4 decimals, one message a second",
            packets_s=(1.0,),
            header=0,
        ),
        "int16": Coder(packed(16), "16 bits a value"),
        "packed-12": Coder(packed(12), "12 bits a value"),
        "packed-4": Coder(packed(4), "4 bits a value: for scale, not lossless"),
        "delta-rice": Coder(lambda counts: len(rice_encode(counts, (1,))), "differences, Rice codes"),
        "dpcm-rice": Coder(
            lambda counts: len(rice_encode(counts, (0, 1, 2, 3))), "best fixed predictor of order 0 to 3, Rice codes"
        ),
    }
    compressors = {"gzip-6": deflate, "zstd-19": zstd, "xz-6": xz}
    layouts = {"": (int16, "int16"), "delta-": (delta_planes, "zigzag differences in byte planes")}
    for prefix, (layout, about) in layouts.items():
        for name, compress in compressors.items():
            found[prefix + name] = Coder(_compressed(layout, compress), f"{name} of {about}", whole=True)
    return found


def _compressed(layout: Callable[[Counts], bytes], compress: Callable[[bytes], bytes]) -> Callable[[Counts], int]:
    return lambda counts: len(compress(layout(counts)))


# -- measuring --------------------------------------------------------------------------------------------------------


def middle(counts: Counts, share: float) -> Counts:
    """The middle ``share`` of ``[n, channels]`` counts."""
    keep = round(share * len(counts))
    start = (len(counts) - keep) // 2
    return counts[start : start + keep]


def packets(segments: Sequence[Counts], rate_hz: float, packet_s: float) -> list[Counts]:
    """Whole packets of as many samples as a device puts into ``packet_s``."""
    samples = max(1, int(packet_s * rate_hz))
    return [one[at : at + samples] for one in segments for at in range(0, len(one) - samples + 1, samples)]


def measure(coder: Coder, blocks: Sequence[Counts], rate_hz: float, *, live: bool) -> dict[str, float | None]:
    """Bits of these blocks: each one is a packet if ``live``, and a file without header otherwise.

    Raises:
        DatasetError: no blocks.
    """
    if not blocks:
        raise DatasetError("no segment is as long as a packet: use more of the recordings (--minutes)")
    sizes = [coder.size(block) for block in blocks]
    header = coder.header if live else 0
    name = topic("w1", Kind.IMU)
    published = sum(publish_size(name, header + size, qos=0, version=5, alias=False) for size in sizes)
    values = sum(block.size for block in blocks)
    payload, all_in = 8 * sum(sizes) / values, 8 * (sum(sizes) + header * len(sizes)) / values
    return {
        "bits_per_sample_payload": round(payload, 4),
        "bits_per_sample_all_in": round(all_in, 4),
        "bps_per_channel_payload": round(payload * rate_hz, 2),
        "bps_per_channel_all_in": round(all_in * rate_hz, 2),
        "bps_per_channel_publish": round(8 * published / values * rate_hz, 2) if live else None,
    }


def run(dataset: str, path: Path, rate_hz: float, *, minutes: float, progress: Progress) -> list[dict[str, Any]]:
    """All comparators on one data set at one rate."""
    task = replace(TASKS[dataset], rate_hz=rate_hz)
    material = load_material(task, path)
    sensor = task.sensor(material.channels)
    available = sum(len(segment.values) for segment in material.segments) / (60 * rate_hz)
    share = min(1.0, minutes / available)
    by_subject: dict[str, list[Counts]] = {subject: [] for subject in material.subjects}
    for segment in material.segments:
        by_subject[segment.subject].append(middle(sensor.to_counts(segment.values), share))
    segments = [counts for one in by_subject.values() for counts in one]
    files = [np.concatenate(one) for one in by_subject.values()]
    used = sum(map(len, segments)) / (60 * rate_hz)

    rows = []
    wanted = coders(sensor, rate_hz)
    bar = progress.add_task(f"{dataset} {rate_hz:g} Hz", total=len(wanted))
    for name, coder in wanted.items():
        lengths: tuple[float | None, ...] = (*coder.packets_s, None) if coder.whole else coder.packets_s
        for packet_s in lengths:
            blocks = files if packet_s is None else packets(segments, rate_hz, packet_s)
            row = {
                "dataset": dataset,
                "channels": len(material.channels),
                "rate_hz": rate_hz,
                "coder": name,
                "packet_s": packet_s,
                **measure(coder, blocks, rate_hz, live=packet_s is not None),
                "minutes": round(used, 1),
                "minutes_available": round(available, 1),
                "about": coder.about,
            }
            rows.append(row)
        progress.advance(bar)
    return rows


def main() -> None:
    """Read the command line."""
    known = [name for name in RATES_HZ if name in TASKS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/har"), help="folder of the archives")
    parser.add_argument("--datasets", nargs="+", choices=sorted(TASKS), default=known)
    parser.add_argument("--rates", nargs="+", type=float, help="Hz; default: those of the frontier")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of each data set at most")
    parser.add_argument("--out", type=Path, default=RESULTS / "lossless.json")
    arguments = parser.parse_args()
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    rows: list[dict[str, Any]] = []
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for dataset in arguments.datasets:
            path = arguments.data / ARCHIVES[dataset]
            for rate_hz in arguments.rates or RATES_HZ.get(dataset, (TASKS[dataset].rate_hz,)):
                rows += run(dataset, path, rate_hz, minutes=arguments.minutes, progress=progress)
    # One row a line: it stays readable, and so do its changes.
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    head = f'{{\n "machine": {json.dumps(machine())},\n "commit": {json.dumps(commit())},\n "rows": [\n  '
    arguments.out.write_text(f"{head}{lines}\n ]\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
