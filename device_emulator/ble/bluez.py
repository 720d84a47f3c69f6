"""On Linux: what bleak leaves to others.

bluetoothd pairs only while some program is its agent. Desktops have one, a machine without a screen has none; there,
bluetoothd asks for no bond, and wearables with our profile refuse that. So the bridge is an agent. It accepts what it
has begun itself, which bluetoothd does not ask about, and nothing else.

bleak's scanner hears nothing more once bluetoothd has started anew or the adapter has been switched off or unplugged,
and does not say so. So the bridge listens for that, too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from dbus_fast import BusType, DBusFastError, Message, MessageType
from dbus_fast.aio import MessageBus

from quantization.errors import ConnectError

CALL_S: Final = 10.0
"""For an answer. Where bluetoothd is started on demand, that has to happen first."""
_AGENT: Final = "/gammawear/agent"
_BLUEZ: Final = "org.bluez"
_ADAPTER: Final = "org.bluez.Adapter1"
_BUS: Final = "org.freedesktop.DBus"
_RULES: Final = (
    f"type='signal',sender='{_BUS}',member='NameOwnerChanged',arg0='{_BLUEZ}'",
    f"type='signal',sender='{_BLUEZ}',member='InterfacesRemoved'",
    f"type='signal',sender='{_BLUEZ}',member='PropertiesChanged',arg0='{_ADAPTER}'",
)


@contextlib.asynccontextmanager
async def attended(lost: asyncio.Event) -> AsyncIterator[None]:
    """Be bluetoothd's agent.

    Args:
        lost: set once bluetoothd or an adapter has gone, or an adapter has been switched off.

    Raises:
        ConnectError: there is no bluetoothd to talk to.
    """
    bus = MessageBus(bus_type=BusType.SYSTEM)
    try:
        try:
            async with asyncio.timeout(CALL_S):
                await bus.connect()
                bus.add_message_handler(lambda message: _handle(message, lost))
                for rule in _RULES:
                    await _call(bus, _BUS, "/org/freedesktop/DBus", _BUS, "AddMatch", "s", rule)
                await _call(
                    bus, _BLUEZ, "/org/bluez", "org.bluez.AgentManager1", "RegisterAgent", "os", _AGENT,
                    "NoInputNoOutput",
                )  # fmt: skip
        except (ConnectError, OSError, EOFError, TimeoutError, DBusFastError) as error:
            raise ConnectError(f"no Bluetooth on this machine: {str(error) or type(error).__name__}") from error
        yield
    finally:
        bus.disconnect()


async def _call(
    bus: MessageBus, destination: str, path: str, interface: str, member: str, signature: str, *body: str
) -> None:
    reply = await bus.call(
        Message(
            destination=destination, path=path, interface=interface, member=member, signature=signature, body=[*body]
        )
    )
    if reply.message_type is MessageType.ERROR:
        raise ConnectError(f"{member}: {', '.join(map(str, reply.body))}")


def _handle(message: Message, lost: asyncio.Event) -> Message | None:
    if message.message_type is MessageType.METHOD_CALL and message.path == _AGENT:
        if message.member in {"Release", "Cancel"}:
            return Message.new_method_return(message)
        return Message.new_error(message, "org.bluez.Error.Rejected", "the bridge pairs with those that it has chosen")
    if message.message_type is MessageType.SIGNAL and _is_loss(message):
        lost.set()
    return None


def _is_loss(signal: Message) -> bool:
    """Whether one of the signals of the rules says that Bluetooth has gone."""
    body = signal.body
    match signal.member:
        case "NameOwnerChanged":  # name, owner before, owner now
            return bool(body[0] == _BLUEZ and not body[2])
        case "InterfacesRemoved":  # object, interfaces
            return _ADAPTER in body[1]
        case "PropertiesChanged":  # interface, changed, invalidated
            powered = body[1].get("Powered")
            return body[0] == _ADAPTER and powered is not None and not powered.value
    return False
