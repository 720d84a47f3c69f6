"""What tests of faults share: stated times, a stream through the bridge, and what became of its packets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from ble_stack import bridging, flying
from bumble.core import UUID
from stack import new_gateway, note, serving, until

from device_emulator.ble import gatt
from device_emulator.ble.air import Air
from device_emulator.ble.bridge import Bridge
from device_emulator.ble.peripheral import Wearable
from gateway.service import Gateway
from models.bundle import SHIPPED

# Stated times, in seconds of the wall clock, and how each comes about. A quiet machine takes a tenth to a third.
RECONNECTS_S = 10.0
"""A link that was lost: back-off 0.1 s, an advertisement each 0.16 s, two dozen round trips at 7.5 ms."""
NO_DATA_S = 2.0
"""The watchdog's patience in these tests."""
KICKS_S = RECONNECTS_S + 2 * NO_DATA_S
"""A link that is dead without a word: the watchdog's patience before."""
BROKER_S = 10.0
"""After the broker's return; the same as docs/operations.md promises for any device."""
ADAPTER_S = 15.0
"""After the adapter's return: back-off of up to 10 s, seldom more than 1 s after a short absence."""
HANGS_S = 25.0
"""A controller that answers nothing: the watchdog's patience, 3 s for a goodbye, half a minute (here 2 s) for an
advertisement, 5 s for an attempt and 4 s for its cancellation."""
WILL_S = 5.0
"""A broker publishes the will as soon as it sees the connection end."""
ATTEMPT_S = 6.0
"""What an attempt to connect may take in the test of an absent device; 20 s otherwise."""


@contextlib.asynccontextmanager
async def worn(*wearables: Wearable) -> AsyncIterator[None]:
    """More wearables on an air that others fly on."""
    tasks = [asyncio.create_task(one.run()) for one in wearables]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def streaming(
    mosquitto: Any, air: Air, *wearables: Wearable, folders: tuple[Path, ...] = (SHIPPED,), **settings: Any
) -> AsyncIterator[tuple[Bridge, Gateway]]:
    """Everything runs, and from each wearable something has come; at the end the gateway has what was sent."""
    gateway = new_gateway(mosquitto.settings, folders=folders)
    async with serving(gateway):
        async with (
            flying(air, *wearables) as hci,
            bridging(mosquitto.settings, hci, **{"no_data_s": NO_DATA_S, **settings}) as bridge,
        ):
            await until(lambda: all(accepted(gateway, one) >= 5 for one in wearables))
            yield bridge, gateway
        await until(lambda: all(accounted(gateway, one) >= one.packets_sent + one.dropped for one in wearables))
        assert gateway.summary().rejected == 0


def losses_of(gateway: Gateway, wearable: Wearable) -> Any:
    device = gateway.pipeline.devices.get(wearable.device.device_id)
    return None if device is None else device.reassembler.losses


def accepted(gateway: Gateway, wearable: Wearable) -> int:
    """Packets that have come and have their place."""
    losses = losses_of(gateway, wearable)
    return 0 if losses is None else int(losses.accepted)


def lost(gateway: Gateway, wearable: Wearable) -> int:
    """Packets that never came."""
    return int(losses_of(gateway, wearable).lost)


def accounted(gateway: Gateway, wearable: Wearable) -> int:
    return accepted(gateway, wearable) + lost(gateway, wearable)


def online(gateway: Gateway) -> dict[str, bool | None]:
    return {view.device: view.online for view in gateway.snapshot()}


async def goes_on(gateway: Gateway, *wearables: Wearable, within_s: float, since: float | None = None) -> None:
    """Wait until a newer packet than any made by now has come from each, and so has, or is lost, all before it."""
    loop = asyncio.get_running_loop()
    since = loop.time() if since is None else since
    goals = {one: one.packets_made for one in wearables}
    await until(lambda: all(accounted(gateway, one) > goal for one, goal in goals.items()))
    took_s = loop.time() - since
    note(f"went on after {took_s:.2f} s of {within_s:g}")
    assert took_s <= within_s


class Meddled:
    """Packets of one wearable that its firmware spoils on their way out, while ``meddle`` is set.

    Attributes:
        spoiled: those that were.
        passed: those that were not, at some time.
    """

    def __init__(self, wearable: Wearable) -> None:
        self.meddle: Callable[[bytes], bytes | None] | None = None
        self.spoiled: set[bytes] = set()
        self.passed: set[bytes] = set()
        self._notify = wearable.radio.notify_subscriber
        wearable.radio.notify_subscriber = self._meddle  # type: ignore[method-assign]

    async def _meddle(self, connection: Any, attribute: Any, value: Any = None, force: bool = False) -> None:
        if attribute.uuid == UUID(gatt.STREAM):
            if self.meddle is None:
                self.passed.add(value)
            else:
                self.spoiled.add(value)
                value = self.meddle(value)
                if value is None:
                    return
        await self._notify(connection, attribute, value, force)

    @property
    def destroyed(self) -> int:
        """Packets that were spoiled and not sent again."""
        return len(self.spoiled - self.passed)
