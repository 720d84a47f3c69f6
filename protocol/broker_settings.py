"""Where the broker is, how to get in, and the two kinds of message that pass: ours out, others' in."""

from __future__ import annotations

import contextlib
import functools
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from quantization.errors import ConnectError, MessageError

MQTT_STRING_LIMIT = 65_535
"""Bytes of a UTF-8 string on the wire (MQTT 5.0, section 1.5.4)."""

MQTT_PACKET_LIMIT = 268_435_455
"""Largest remaining length (MQTT 5.0, section 1.5.5)."""


class BrokerSettings(BaseModel):
    """Address, credentials and protocol of one broker.

    A certificate is always checked against the host's name: there is no switch to turn that off. A broker with a
    certificate of one's own making is reached by naming its CA in ``ca_file``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=1883, ge=1, le=65_535)
    username: str | None = None
    password: SecretStr | None = None
    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    keepalive_s: int = Field(default=30, ge=1, le=65_535)
    protocol: Literal["auto", "5", "3.1.1"] = "auto"

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.password is not None and self.username is None:
            msg = "a password needs a username (MQTT 3.1.1, section 3.1.2.9)"
            raise ValueError(msg)
        if not self.tls and (self.ca_file or self.cert_file or self.key_file):
            msg = "ca_file, cert_file and key_file are used with tls = true only"
            raise ValueError(msg)
        if self.key_file is not None and self.cert_file is None:
            msg = "key_file needs cert_file"
            raise ValueError(msg)
        return self

    @property
    def address(self) -> str:
        """``host:port``, for messages to a person."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Message:
    """What we publish.

    Args:
        topic: without wildcards.
        payload: any bytes.
        qos: 0 or 1.
        retain: the broker keeps it for those who come later.
        taken_ns: UTC at which we were given what is in it, for one who passes on what others say. If it then has to
            wait here, the time goes along (MQTT 5).

    Raises:
        MessageError: a topic or QoS that could never be sent. Raised here, where the mistake is made, because
            :meth:`Connection.publish` hands the message over later, where nobody could catch it.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    taken_ns: int | None = None

    def __post_init__(self) -> None:
        if self.qos not in (0, 1):
            raise MessageError("qos", f"QoS {self.qos}; this connection speaks 0 and 1")
        if not self.topic or "+" in self.topic or "#" in self.topic or "\0" in self.topic:
            raise MessageError("topic", f"{self.topic!r} is not a topic that can be published to")
        size = len(self.topic.encode())
        if size > MQTT_STRING_LIMIT:
            raise MessageError("topic", f"{size} bytes, MQTT allows {MQTT_STRING_LIMIT}")
        if size + len(self.payload) > MQTT_PACKET_LIMIT - 16:
            raise MessageError("payload", f"{len(self.payload)} bytes do not fit an MQTT packet")


class Received(NamedTuple):
    """What a subscription brought, with the wall time (UTC, ns) at which we read it from the socket."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    received_ns: int
    taken_ns: int | None = None
    """Wall time (UTC, ns) at which whoever passed it on had it, if it waited there; by their clock."""


class _ClosingSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails: paho forgets such a socket without closing it."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the base class's signature
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self.close)
            super().do_handshake(block)
            on_failure.pop_all()


@functools.lru_cache(maxsize=16)
def _context(ca_file: Path | None, cert_file: Path | None, key_file: Path | None) -> ssl.SSLContext:
    """Return a context; shared, since reading the system's CAs takes some 10 ms and there may be 500 connections."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert_file is not None:
        context.load_cert_chain(cert_file, key_file)
    context.sslsocket_class = _ClosingSocket
    return context


def tls_context(settings: BrokerSettings) -> ssl.SSLContext | None:
    """Return the TLS context of these settings, None without TLS. Files are read once per process.

    Raises:
        ConnectError: a file is missing or is no certificate or key.
    """
    if not settings.tls:
        return None
    try:
        return _context(settings.ca_file, settings.cert_file, settings.key_file)
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(str(f) for f in (settings.ca_file, settings.cert_file, settings.key_file) if f is not None)
        raise ConnectError(f"cannot load the certificates ({files}): {error}; check paths and format (PEM)") from error
