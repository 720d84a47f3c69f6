"""``gammawear record``: what a wearable sends, with what its wearer does as somebody types it, to a trace."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bleak import BleakClient
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from rich.console import Console
from rich.markup import escape

from device_emulator.ble import gatt
from device_emulator.ble.adapter import Adapter, open_adapter, seen_of
from device_emulator.ble.follower import Follower
from device_emulator.ble.profiles.base import Profile, Seen
from device_emulator.ble.sampled import RecordedStream
from device_emulator.ble.streams import Stream
from gammawear.options import check_writable, until_stopped
from quantization.errors import ProfileError, TraceError

FIND_S = 30.0
"""A wearable that does not advertise by then is asleep, far away or connected to a phone."""
SHOW_S = 0.5


@dataclass(frozen=True)
class RecordOptions:
    """What to record.

    Args:
        out: the file, which must not exist.
        labels: activities that can be typed.
        subject: who wears it.
        hci: controller for Bumble; None = the platform's own Bluetooth.
        device: address; None = the first wearable that a profile knows.
        kinds: profiles to try.
        rate_hz: wanted; None = the highest that it offers up to 60.
        seconds: end by itself after so long; None = never.
    """

    out: Path
    labels: tuple[str, ...]
    subject: str
    hci: str | None
    device: str | None
    kinds: tuple[Profile, ...]
    rate_hz: float | None
    seconds: float | None


async def record(options: RecordOptions, console: Console) -> None:
    """Record until ``q``, Ctrl-C or the time is over, and save.

    Raises:
        ProfileError: no such wearable, or one that cannot be recorded.
        TraceError: the file exists or cannot be written, or nothing came.
        KeyboardInterrupt: Ctrl-C before anything came.
    """
    _check_writable(options.out)
    interrupted = False
    async with open_adapter(options.hci) as adapter:
        take = _Take(options, console)

        async def stop() -> None:
            nonlocal interrupted
            interrupted = True
            take.finish()

        if options.seconds is not None:
            asyncio.get_running_loop().call_later(options.seconds, take.finish)
        try:
            with _typed_lines(take.typed):
                await until_stopped(take.run(adapter), stop)
        finally:
            if take.stream is not None and take.stream.samples:
                if take.stream.doubt is not None:
                    console.print(take.stream.doubt, markup=False, highlight=False)
                _save(take.stream, options.out)
                console.print(f"{take.stream.samples} samples in {escape(str(options.out))}", highlight=False)
    if take.stream is None or not take.stream.samples:
        if interrupted:
            raise KeyboardInterrupt
        raise TraceError("nothing was received, so nothing was saved")


def _check_writable(out: Path) -> None:
    """Refuse before somebody has worn anything for an hour."""
    if out.exists():
        raise TraceError(f"{out} exists; give another --out")
    try:
        check_writable(out)
    except OSError as error:
        raise TraceError(f"cannot write to {out.parent}: {error.strerror}; give another --out") from error


def _save(stream: RecordedStream, out: Path) -> None:
    """Save, if need be elsewhere: nobody records the same again.

    Raises:
        TraceError: not where it was wanted; the message says where it is.
    """
    try:
        stream.save(out)
    except TraceError as error:
        rescued = Path(tempfile.mkdtemp(prefix="gammawear-")) / out.name
        stream.save(rescued)
        raise TraceError(f"{error}; the recording is in {rescued}") from error


class _Take:
    """One recording in the making."""

    def __init__(self, options: RecordOptions, console: Console) -> None:
        self._options = options
        self._console = console
        self._label: str | None = None
        self.stream: RecordedStream | None = None
        self._follower: Follower | None = None
        self._searched = asyncio.Event()
        self._finished = asyncio.Event()
        self._why_none = ProfileError(
            "device",
            f"no wearable that a profile knows was heard in {FIND_S:g} s; gammawear bridge --scan lists what is near",
        )

    def finish(self) -> None:
        """End, be it while a wearable is looked for."""
        self._searched.set()
        self._finished.set()

    async def run(self, adapter: Adapter) -> None:
        following: asyncio.Task[None] | None = None
        try:
            async with adapter.scanner(self._heard):
                self._console.print("listening for a wearable (q: end)")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FIND_S):
                        await self._searched.wait()
                if self._finished.is_set():
                    return
                if self._follower is None:
                    raise self._why_none
                following = asyncio.create_task(self._follower.run(adapter))
                await self._show(self._follower)
        finally:
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    def _heard(self, device: BLEDevice, heard: AdvertisementData) -> None:
        wanted = self._options.device
        if wanted is not None and device.address.upper() != wanted.upper():
            return
        if self._follower is None:
            try:
                self._follower = self._new_follower(seen_of(device, heard))
            except ProfileError as error:
                self._why_none = error
                if wanted is not None:  # else another may do
                    self._searched.set()
        if self._follower is not None and device.address == self._follower.address:
            self._follower.heard(device, heard.rssi)

    def _new_follower(self, seen: Seen) -> Follower | None:
        """One for a wearable that a profile knows.

        Raises:
            ProfileError: it cannot be recorded, or not at this rate.
        """
        options = self._options
        profile = next((kind for kind in options.kinds if kind.knows(seen)), None)
        if profile is None:
            if gatt.SERVICE in seen.services:
                raise ProfileError(
                    "device",
                    "a gammawear wearable sends codes, not samples: record with another, or with its own firmware",
                )
            return None
        self.stream = stream = RecordedStream(
            seen.name or seen.address, profile=profile, rate_hz=options.rate_hz, labels=options.labels,
            subject=options.subject,
        )  # fmt: skip
        stream.set_label(self._label)

        async def make(_: BleakClient) -> Stream:
            return stream

        self._console.print(f"{escape(seen.name)} ({seen.address}), a {profile.title}", highlight=False)
        self._searched.set()
        return Follower(seen.address, make, lambda _: None)

    def typed(self, line: str) -> None:
        """Take a line of the user's: a label, its number, nothing, or ``q``."""
        text = line.strip()
        labels = self._options.labels
        if text.lower() in ("q", "quit"):
            self.finish()
            return
        if text.isdigit() and 1 <= int(text) <= len(labels):
            text = labels[int(text) - 1]
        if text and text not in labels:
            self._console.print(f"no label {escape(text)!r}; there are {', '.join(labels)}", highlight=False)
            return
        self._label = text or None
        if self.stream is not None:
            self.stream.set_label(self._label)

    async def _show(self, follower: Follower) -> None:
        numbered = "  ".join(f"{n} {label}" for n, label in enumerate(self._options.labels, start=1))
        self._console.print(f"type a number and Enter: {numbered}  (Enter alone: no label, q: save and end)")
        with self._console.status("connecting") as status:
            while not self._finished.is_set():
                samples = 0 if self.stream is None else self.stream.samples
                doing = self._label or "no label"
                trouble = follower.error or (self.stream and self.stream.doubt)
                status.update(
                    f"{follower.state}: {samples} samples, {doing}{escape(f', {trouble}' if trouble else '')}"
                )
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SHOW_S):
                        await self._finished.wait()


@contextlib.contextmanager
def _typed_lines(take: Callable[[str], None]) -> Iterator[None]:
    """Call ``take`` with each line of standard input, on the loop; with none where that is closed."""
    if sys.stdin is None:
        yield
        return
    loop, descriptor = asyncio.get_running_loop(), sys.stdin.fileno()
    pending = bytearray()

    def read() -> None:
        data = os.read(descriptor, 4096)
        if not data:
            loop.remove_reader(descriptor)
        pending.extend(data)
        del pending[:-4096]
        while b"\n" in pending:
            line, _, rest = bytes(pending).partition(b"\n")
            pending[:] = rest
            take(line.decode(errors="replace"))

    with contextlib.suppress(PermissionError, NotImplementedError):  # a file, or Windows: nobody types
        loop.add_reader(descriptor, read)
    try:
        yield
    finally:
        with contextlib.suppress(NotImplementedError):
            loop.remove_reader(descriptor)
