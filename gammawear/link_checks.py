"""What ``gammawear doctor`` looks at beyond the machine: Bluetooth and the broker."""

from __future__ import annotations

import asyncio
import importlib.util
import ipaddress
import secrets
import sys
from typing import Any, Final

from gammawear.checks import Finding
from protocol.broker_settings import BrokerSettings
from protocol.connection import Connection, Received
from protocol.messages import Status
from protocol.topics import GATEWAY_ID, Kind, check_device_id, topic
from quantization.errors import ConnectError, MessageError

CALL_S: Final = 5.0
"""For an answer over D-Bus, and for a connection to the broker: one attempt takes 3.5 s at most."""
ANSWER_S: Final = 2.0
"""For a message to come back."""
_SECURITY: Final = "docs/security.md says who may do what"


# -- Bluetooth --------------------------------------------------------------------------------------------------------


async def check_bluetooth() -> Finding:
    """Whether there is an adapter that is on. Only a bridge needs one, so its absence is a warning."""
    if importlib.util.find_spec("bleak") is None:
        return Finding("warning", "bluetooth", "not installed", "for a bridge: pip install 'gammawear[ble]'")
    if sys.platform != "linux":
        return Finding("ok", "bluetooth", f"not checked on {sys.platform}: try gammawear bridge --scan")
    if importlib.util.find_spec("dbus_fast") is None:
        return Finding("warning", "bluetooth", "dbus-fast is missing", "for a bridge: pip install 'gammawear[ble]'")
    try:
        async with asyncio.timeout(CALL_S):
            adapters = await _adapters()
    except (OSError, EOFError, TimeoutError) as error:
        said = str(error) or type(error).__name__
        remedy = "for a bridge: apt install bluez, systemctl start bluetooth; in a container, mount /run/dbus"
        if "AccessDenied" in said:
            remedy = "usermod --append --groups bluetooth with the account that runs the bridge, then log in anew"
        return Finding("warning", "bluetooth", f"no BlueZ to talk to: {said}", remedy)
    on = [name for name, powered in adapters.items() if powered]
    if on:
        return Finding("ok", "bluetooth", f"{', '.join(on)} is on")
    if adapters:
        remedy = "rfkill list; rfkill unblock bluetooth; bluetoothctl power on"
        return Finding("warning", "bluetooth", f"{', '.join(adapters)} is off", remedy)
    return Finding("warning", "bluetooth", "BlueZ has no adapter", "plug one in; lsusb, dmesg and rfkill list say more")


async def _adapters() -> dict[str, bool]:
    """BlueZ's adapters and whether they are on.

    Raises:
        ConnectError: there is no BlueZ, or it does not talk to us.
    """
    from dbus_fast import BusType, DBusFastError, Message, MessageType
    from dbus_fast.aio import MessageBus

    bus = MessageBus(bus_type=BusType.SYSTEM)
    ask = Message(
        destination="org.bluez",
        path="/",
        interface="org.freedesktop.DBus.ObjectManager",
        member="GetManagedObjects",
    )
    try:
        await bus.connect()
        reply = await bus.call(ask)
    except DBusFastError as error:
        raise ConnectError(str(error)) from error
    finally:
        bus.disconnect()
    if reply.message_type is MessageType.ERROR:
        raise ConnectError(f"{reply.error_name}: {', '.join(map(str, reply.body))}")
    objects: dict[str, dict[str, dict[str, Any]]] = reply.body[0]
    found = {path: interfaces.get("org.bluez.Adapter1") for path, interfaces in objects.items()}
    return {
        path.rpartition("/")[2]: bool(adapter["Powered"].value)
        for path, adapter in found.items()
        if adapter is not None and "Powered" in adapter
    }


# -- broker -----------------------------------------------------------------------------------------------------------


async def check_broker(settings: BrokerSettings) -> list[Finding]:
    """Connect, then publish under our own name and see whether it comes back.

    Where the account's name is the client id (``deploy/mosquitto/secure.conf``), this takes the session of whoever is
    connected with the account.
    """
    own = topic(_own_id(settings), Kind.STATUS)
    heard: list[Received] = []
    arrived = asyncio.Event()
    # With an account this is the topic of somebody who may be at work: an empty status says nothing of it.
    said = Status(state="online").to_json() if settings.username is None else b""

    def hear(received: Received) -> None:
        heard.append(received)
        if received.payload == said and not received.retain:
            arrived.set()

    name = f"gammawear-doctor-{secrets.token_hex(4)}"
    connection = Connection(settings, name, subscriptions=((own, 1),), on_message=hear, queue_limit=4)
    running = asyncio.create_task(connection.run())
    try:
        await connection.wait_connected(CALL_S)
        found = [_connected(settings, connection)]
        connection.publish(own, said, 1)
        found.append(await _round_trip(connection, own, arrived, anonymous=settings.username is None))
        await connection.stop()
    except ConnectError as error:
        remedy = "check that the broker runs there, and --host, --port, --username, --tls, --ca-file"
        why = running.exception() if running.done() else None  # for good, then; it says more
        return [Finding("problem", "broker", str(why or error), remedy)]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return found


def _own_id(settings: BrokerSettings) -> str:
    """The account's name, as rights hang on it. A gateway ignores what is said of ``gateway``, so nobody is misled."""
    try:
        return check_device_id(settings.username or GATEWAY_ID)
    except MessageError:
        return GATEWAY_ID


def _connected(settings: BrokerSettings, connection: Connection) -> Finding:
    text = f"{settings.address} answers, MQTT {connection.protocol_in_use}, {'TLS' if settings.tls else 'without TLS'}"
    if settings.password is not None and not settings.tls and not _is_here(settings.host):
        remedy = "--tls or --ca-file; then change the password"
        return Finding("warning", "broker", f"{text}: the password goes in plain text", remedy)
    return Finding("ok", "broker", text)


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _round_trip(connection: Connection, own: str, arrived: asyncio.Event, *, anonymous: bool) -> Finding:
    if not await connection.flush(ANSWER_S):
        return Finding("problem", "broker", f"nothing was acknowledged on {own}", f"see the broker's log; {_SECURITY}")
    if connection.dropped.total():
        reason = ", ".join(connection.dropped)
        return Finding("problem", "broker", f"may not publish on {own} ({reason})", _SECURITY)
    try:
        async with asyncio.timeout(ANSWER_S):
            await arrived.wait()
    except TimeoutError:
        if anonymous:
            return Finding("warning", "broker", f"published on {own}, and nothing came back", _SECURITY)
        return Finding("ok", "broker", f"may publish on {own}, not read there: so it is for devices and bridges")
    return Finding("ok", "broker", f"publishes and receives on {own}")
