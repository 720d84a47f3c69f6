"""The Bluetooth adapter that a bridge owns: the platform's own, or a controller that Bumble drives."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from bleak import BleakClient, BleakScanner
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak_retry_connector import establish_connection

from device_emulator.ble.bumble_backend import BumbleClient, BumbleScanner
from device_emulator.ble.central import Central
from device_emulator.ble.profiles.base import Seen

Heard = Callable[[BLEDevice, AdvertisementData], None]

ATTEMPTS: Final = 2
"""Of bleak-retry-connector's own, which know each platform's passing faults; after them our back-off goes on."""
CONNECT_S: Final = 20.0
"""A device that is near and awake is connected in one to three seconds. For one that is not there,
bleak-retry-connector alone may take 45 s."""


@dataclass(frozen=True)
class Adapter:
    """An adapter that is open.

    Args:
        scanner_options: what scanners get beside bleak's own arguments.
        client_options: what clients get.
        lost: set once the adapter has gone.
    """

    scanner_options: dict[str, Any] = field(default_factory=dict)
    client_options: dict[str, Any] = field(default_factory=dict)
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    def scanner(self, heard: Heard) -> BleakScanner:
        """A scanner that is not running yet; ``async with`` runs it."""
        return BleakScanner(heard, **self.scanner_options)

    async def connect(self, device: BLEDevice, gone: Callable[[BleakClient], None]) -> BleakClient:
        """Connect and discover.

        Args:
            device: as the scanner found it.
            gone: called when the link is lost.

        Raises:
            BleakError: it cannot be connected.
            TimeoutError: nor within :data:`CONNECT_S`.
        """
        async with asyncio.timeout(CONNECT_S):
            return await establish_connection(
                BleakClient,
                device,
                device.name or device.address,
                disconnected_callback=gone,
                max_attempts=ATTEMPTS,
                timeout=CONNECT_S / ATTEMPTS,
                **self.client_options,
            )


def seen_of(device: BLEDevice, heard: AdvertisementData) -> Seen:
    """What a wearable says of itself, for profiles."""
    return Seen(device.address, heard.local_name or "", frozenset(heard.service_uuids), heard.rssi)


@contextlib.asynccontextmanager
async def open_adapter(hci: str | None = None, *, bonds: str | None = None) -> AsyncIterator[Adapter]:
    """Open an adapter, and close it at the end.

    Args:
        hci: one of Bumble's transports, ``tcp-client:127.0.0.1:9001`` or ``usb:0``; None = the platform's own stack
            (BlueZ, Windows, macOS).
        bonds: file where Bumble keeps bonds; platforms keep their own.

    Raises:
        ConnectError: there is no such controller, or no Bluetooth on this machine.
    """
    if hci is None:
        adapter = Adapter()
        async with contextlib.AsyncExitStack() as stack:
            if sys.platform == "linux":
                from device_emulator.ble.bluez import attended

                await stack.enter_async_context(attended(adapter.lost))
            yield adapter
        return
    async with Central.open(hci, bonds=bonds) as central:
        yield Adapter(
            {"backend": BumbleScanner, "central": central}, {"backend": BumbleClient, "central": central}, central.lost
        )
