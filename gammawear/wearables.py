"""Puts emulated wearables together: a wearer (generated or recorded), a part, a bundle's codebook, a broker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from device_emulator.decimate import Decimated, matched
from device_emulator.device import Device, shared_encoder
from device_emulator.link import Link, LinkSettings
from device_emulator.publisher import DevicePublisher
from device_emulator.replay import ReplaySource
from device_emulator.source import Source
from device_emulator.synthetic import SyntheticSource, wearers
from gammawear.logs import NOTES as _NOTES
from models.device_part import DevicePart
from protocol.broker_settings import BrokerSettings
from protocol.trace import Trace, load_trace
from quantization.errors import DatasetError, SensorError
from quantization.sensor import PARTS, Axes, Sensor

if TYPE_CHECKING:
    from models.resample import Segment
    from models.tasks import Material

WEARERS: Final = {"sp_sw_har": "tug", "wisdm2019_watch": "wisdm"}
"""The generated wearer that was fitted to each data set."""


@dataclass(frozen=True)
class WearableOptions:
    """What all wearables of a command share.

    Args:
        packet_s: longest duration of a packet.
        qos: of packets and labels.
        speed: device seconds in a second.
        labels: publish the truth beside the data.
        axes: how the part is turned in its case.
        link: faults and pacing between device and broker; None for none.
        prefix: device ids are ``<prefix>-01`` and so on.
    """

    packet_s: float = 1.0
    qos: Literal[0, 1] = 1
    speed: float = 1.0
    labels: bool = True
    axes: Axes | None = None
    link: LinkSettings | None = None
    prefix: str = "wearable"


def part_for(bundle: DevicePart, name: str | None) -> Sensor:
    """A part by name, at the bundle's own full scales; None takes the part that the bundle was trained with.

    Raises:
        SensorError: no such part, or it lacks a range or the gyroscope.
    """
    if name is None:
        return bundle.sensor
    if name not in PARTS:
        raise SensorError(f"no part is called {name!r}; there are {', '.join(PARTS)}")
    trained = bundle.sensor
    full_scale = {
        c.split("_")[0]: lsb * -trained.count_min for c, lsb in zip(trained.channels, trained.lsb, strict=True)
    }
    return PARTS[name].sensor(name, trained.channels, acc_g=full_scale["acc"], gyro_dps=full_scale.get("gyro"))


def synthetic_sources(
    bundle: DevicePart, sensor: Sensor, *, count: int, seed: int, rate_hz: float | None
) -> list[Source]:
    """Generated wearers, each with a seed of its own.

    Raises:
        DatasetError: no wearer was fitted to the data that the bundle knows.
    """
    wearer = WEARERS.get(bundle.manifest.data.dataset)
    if wearer not in wearers():
        raise DatasetError(
            f"there is no generated wearer for {bundle.reference} (trained on {bundle.manifest.data.dataset}); "
            "replay recordings with --dataset or --trace"
        )
    rate = rate_hz or bundle.manifest.rate_hz
    return [SyntheticSource(sensor, rate_hz=rate, seed=seed * 10_000 + n, wearer=wearer) for n in range(count)]


def dataset_sources(
    bundle: DevicePart, material: Material, sensor: Sensor, *, subjects: Sequence[str], count: int | None, loop: bool
) -> list[Source]:
    """One wearable for each subject, or ``count`` of them, subjects taken in turn."""
    chosen = [subjects[n % len(subjects)] for n in range(count or len(subjects))]
    return [ReplaySource(_traces(material, subject, sensor, bundle), loop=loop) for subject in chosen]


def trace_sources(paths: Sequence[Path], *, loop: bool) -> list[Source]:
    """One wearable for each trace file."""
    return [ReplaySource([load_trace(path)], loop=loop) for path in paths]


def wearables(
    sources: Iterable[Source], bundle: DevicePart, broker: BrokerSettings, options: WearableOptions
) -> list[DevicePublisher]:
    """A device and its connection for every source; decimated, and said so, where its rate is 2, 4 or 8 times too high.

    Raises:
        CodebookError: a rate that does not fit the bundle's either way, or other channels.
    """
    fitting = [matched(source, bundle.codebook.rate_hz) for source in sources]
    for note in dict.fromkeys(_note(source) for source in fitting if isinstance(source, Decimated)):
        _NOTES.print(note, soft_wrap=True, highlight=False)
    publishers = []
    for number, source in enumerate(fitting, start=1):
        link = options.link
        device = Device(
            f"{options.prefix}-{number:02d}",
            source,
            shared_encoder(bundle.codebook, source.sensor),
            axes=options.axes,
            packet_s=options.packet_s,
            **({"max_payload_bytes": link.max_payload_bytes} if link else {}),
        )
        per_device = link.model_copy(update={"seed": link.seed + number}) if link else None
        publishers.append(
            DevicePublisher(
                device,
                broker,
                qos=options.qos,
                speed=options.speed,
                link=Link(per_device) if per_device else None,
                labels=options.labels,
            )
        )
    return publishers


def _note(source: Decimated) -> str:
    return (
        f"devices decimate {source.rate_hz * source.factor:g} Hz by {source.factor} to {source.rate_hz:g} Hz "
        f"before they quantize (group delay {source.delay_ms:.0f} ms)"
    )


def _traces(material: Material, subject: str, sensor: Sensor, bundle: DevicePart) -> list[Trace]:
    """A subject's segments as a device would have recorded them, also of activities that the bundle does not know."""
    strangers = [(name, s) for name, segments in material.unknown.items() for s in segments if s.subject == subject]
    takes = [(None, segment) for segment in material.of([subject])] + strangers
    names = (*material.labels, *sorted(material.unknown))
    return [
        _trace(segment, subject, sensor, names, None if activity is None else names.index(activity))
        for activity, segment in takes
        if len(segment.values) >= bundle.manifest.window
    ]


def _trace(segment: Segment, subject: str, sensor: Sensor, names: tuple[str, ...], label: int | None) -> Trace:
    samples = np.arange(len(segment.values))
    return Trace(
        sensor=sensor,
        rate_hz=segment.rate_hz,
        counts=sensor.to_counts(segment.values),
        tick_ms=np.rint(1000 * samples / segment.rate_hz).astype(np.int64),
        label=segment.label if label is None else np.full(len(samples), label, dtype=np.int16),
        labels=names,
        subject=subject,
        source="dataset",
    )
