"""What the gateway keeps of each device, and the bound on how many devices it keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from gateway.clock import DeviceClock, passed
from gateway.labels import LabelTrack
from gateway.reassembly import Losses, Reassembler
from gateway.refusals import RefusedPacketError
from gateway.traffic import RecentTraffic
from gateway.windows import Flush, WindowBuffer
from models.bundle import Bundle
from protocol.messages import Activity, Status

STREAMING_NS: Final = 10_000_000_000
"""A device whose last packet is older does not stream: ten packets of the usual length."""


class Device:
    """One device: its stream, its clock, its labels and its last answer. About 10 kB.

    Attributes:
        status: the last one it sent.
        activity: the last answer.
        truth: of the last window that was scored.
        truth_from_tick: where that window began.
        last_seen_ns: UTC of its last packet that decoded; 0 before the first.
        touched_ns: monotonic time of its last packet, status or label.
        digest: of the codebook that it says it runs.
    """

    __slots__ = (
        "activity",
        "buffer",
        "clock",
        "digest",
        "id",
        "labels",
        "last_seen_ns",
        "reassembler",
        "recent",
        "status",
        "touched_ns",
        "truth",
        "truth_from_tick",
    )

    def __init__(self, device: str, *, lateness_ms: float, losses: Losses, flushed: Callable[[Flush], None]) -> None:
        self.id = device
        self.clock = DeviceClock()
        self.reassembler = Reassembler(losses)
        self.buffer = WindowBuffer(device, flushed)
        self.labels = LabelTrack(lateness_ms)
        self.recent = RecentTraffic()
        self.status: Status | None = None
        self.digest: bytes | None = None
        self.activity: Activity | None = None
        self.truth: str | None = None
        self.truth_from_tick: int | None = None
        self.last_seen_ns = 0
        self.touched_ns = 0

    def said(self, status: Status) -> None:
        """Keep what the device says of itself."""
        self.status = status
        if status.codebook is not None:
            self.digest = bytes.fromhex(status.codebook)

    def period_ms(self, bundle: Bundle) -> float:
        """Milliseconds between samples: by the device's word, else by the bundle.

        Raises:
            RefusedPacketError: ``rate``: what the device says is more than 5 % off.
        """
        rate = self.status.rate_hz if self.status is not None else None
        # A status about another codebook (the device is switching) says nothing of this one's rate.
        if rate is None or (self.digest is not None and self.digest != bundle.codebook.digest):
            return 1000.0 / bundle.manifest.rate_hz
        if not bundle.accepts_rate(rate):
            wanted = f"{bundle.reference} takes {bundle.manifest.rate_hz:g} Hz"
            raise RefusedPacketError("rate", f"{wanted}, the device says that it samples at {rate:g} Hz")
        return 1000.0 / rate

    def streaming(self, now_ns: int) -> bool:
        """Whether a packet came of late."""
        return self.last_seen_ns > 0 and not passed(self.last_seen_ns, now_ns, STREAMING_NS)


class DeviceTable:
    """All devices, at most ``limit``. One that is silent for ``forget_ns`` is forgotten.

    Anybody can invent ids and send statuses for them. A device that sends packets therefore takes the place of one that
    never did, if the table is full.

    Args:
        limit: so many.
        forget_ns: after so long without a packet, a status or a label.
        create: makes the state of a new one.
    """

    def __init__(self, limit: int, forget_ns: int, create: Callable[[str], Device]) -> None:
        self._devices: dict[str, Device] = {}
        self._never_streamed: dict[str, None] = {}  # oldest first
        self._limit = limit
        self._forget_ns = forget_ns
        self._create = create

    def __len__(self) -> int:
        return len(self._devices)

    def __iter__(self) -> Iterator[Device]:
        # A copy, made in one step: the thread that serves metrics reads it while the loop adds devices.
        return iter(list(self._devices.values()))

    def get(self, device: str) -> Device | None:
        """The device, if it is known."""
        return self._devices.get(device)

    def obtain(self, device: str, now_ns: int, *, streams: bool = False) -> Device:
        """The device, made if it is new.

        Args:
            device: its id.
            now_ns: monotonic.
            streams: it has sent a sound packet.

        Raises:
            RefusedPacketError: ``device_limit``.
        """
        known = self._devices.get(device)
        if known is None:
            if len(self._devices) >= self._limit:
                self._make_room(streams=streams)
            known = self._devices[device] = self._create(device)
            if not streams:
                self._never_streamed[device] = None
        elif streams and known.last_seen_ns == 0:
            self._never_streamed.pop(device, None)
        known.touched_ns = now_ns
        return known

    def forget_silent(self, now_ns: int) -> list[Device]:
        """Drop the devices that have been silent too long by the monotonic clock; returns them."""
        silent = [device for device in self._devices.values() if now_ns - device.touched_ns > self._forget_ns]
        for device in silent:
            self._drop(device.id)
        return silent

    def _make_room(self, *, streams: bool) -> None:
        stranger = next(iter(self._never_streamed), None)
        if not streams or stranger is None:
            raise RefusedPacketError("device_limit", f"{self._limit} devices are known already")
        self._drop(stranger)

    def _drop(self, device: str) -> None:
        del self._devices[device]
        self._never_streamed.pop(device, None)
