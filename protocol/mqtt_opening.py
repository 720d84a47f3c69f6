"""How a client introduces itself to a broker, and what can come of it: CONNECT, CONNACK, and the errors between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from protocol.broker_settings import BrokerSettings, Message, tls_context
from quantization.errors import ConnectError

CONNECT_TIMEOUT_S = 3.5
"""For TCP and TLS. Linux repeats a lost SYN after 1 s and 3 s: two chances, and short enough that an attempt that
began just before the broker came back does not cost the ten seconds within which a stream is to go on."""

SESSION_EXPIRY_S = 86_400
"""How long the broker keeps a persistent session without its client: one day outlasts a night or an upgrade, and
forgets a gateway that was renamed before its queue fills the broker's memory."""

NOT_WORTH_RETRYING = {
    0x84: "set protocol to another version, or to auto",
    0x85: "choose another client id",
    0x86: "check username and password",
    0x87: "the broker's access list does not let this client in: check username, password and its rights",
    0x8A: "the broker has banned this client",
    0x8C: "the broker wants an authentication method that we do not have",
}
"""Reason codes of CONNACK (MQTT 5.0, table 3-1) that stay the same however often one asks, and what to do.
MQTT 3.1.1's return codes 1–5 come translated to them by paho."""

UNSUPPORTED_PROTOCOL_VERSION = 0x84


class ChannelError(ConnectError):
    """A connection attempt that failed.

    Args:
        detail: what happened and what to do.
        code: CONNACK's or SUBACK's reason code, if it came to that.
        permanent: whether trying again cannot help.
        closed_early: the broker took the TCP connection and closed it, or kept silent, instead of answering CONNECT.
    """

    def __init__(
        self, detail: str, *, code: int | None = None, permanent: bool = False, closed_early: bool = False
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.permanent = permanent
        self.closed_early = closed_early


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the broker said in CONNACK (MQTT 5.0, section 3.2.2.3); 3.1.1 has the first only."""

    session_present: bool
    alias_maximum: int = 0
    receive_maximum: int = 65_535
    maximum_packet_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How to introduce ourselves."""

    settings: BrokerSettings
    client_id: str
    version: Literal[4, 5]
    clean: bool
    will: Message | None
    receive_maximum: int | None
    topic_aliases: bool


def make_client(opening: Opening) -> mqtt.Client:
    """Return a paho client that knows who it is and keeps neither a window nor a connection of its own accord."""
    v5, settings = opening.version == 5, opening.settings
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2,
        client_id=opening.client_id,
        clean_session=None if v5 else opening.clean,
        protocol=MQTTProtocolVersion.MQTTv5 if v5 else MQTTProtocolVersion.MQTTv311,
        reconnect_on_failure=False,
    )
    client.connect_timeout = CONNECT_TIMEOUT_S
    client.max_inflight_messages_set(0)
    if settings.username is not None:
        password = settings.password.get_secret_value() if settings.password is not None else None
        client.username_pw_set(settings.username, password)
    if (context := tls_context(settings)) is not None:
        client.tls_set_context(context)
    if (will := opening.will) is not None:
        client.will_set(will.topic, will.payload, will.qos, will.retain)
    return client


def connect_blocking(client: mqtt.Client, opening: Opening) -> None:
    """Resolve the name, open TCP and TLS, queue CONNECT. Blocks for up to :data:`CONNECT_TIMEOUT_S` or longer."""
    settings = opening.settings
    if opening.version == 4:
        client.connect(settings.host, settings.port, settings.keepalive_s)
        return
    properties = new_properties(PacketTypes.CONNECT)
    if opening.receive_maximum is not None:
        properties.ReceiveMaximum = opening.receive_maximum
    if not opening.clean:
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
    client.connect(settings.host, settings.port, settings.keepalive_s, clean_start=opening.clean, properties=properties)


def read_connack(address: str, session_present: bool, reason: ReasonCode, answer: Properties | None) -> Accepted:  # noqa: FBT001 - as paho hands it over
    """Return what the broker grants.

    Raises:
        ChannelError: it refuses.
    """
    if reason.is_failure:
        remedy = NOT_WORTH_RETRYING.get(reason.value)
        text = f"{address} refused the connection: {str(reason).lower()}"
        raise ChannelError(f"{text}; {remedy}" if remedy else text, code=reason.value, permanent=remedy is not None)
    # A property that the broker did not send is no attribute.
    return Accepted(
        session_present=session_present,
        alias_maximum=getattr(answer, "TopicAliasMaximum", 0),
        receive_maximum=getattr(answer, "ReceiveMaximum", 65_535),
        maximum_packet_size=getattr(answer, "MaximumPacketSize", None),
    )


def new_properties(packet_type: int) -> Properties:
    """Return an empty set of MQTT 5 properties; paho's constructor has no types."""
    return Properties(packet_type)  # type: ignore[no-untyped-call]
