"""MQTT topics: who says what where.

================================= ========= ====== =========================================== =====================
topic                             from      retain payload                                     QoS
================================= ========= ====== =========================================== =====================
``gammawear/v1/<id>/imu``         device    no     :class:`protocol.packet.Packet`, binary     0, or 1 by option
``gammawear/v1/<id>/status``      device    yes    :class:`protocol.messages.Status`; the will 1
``gammawear/v1/<id>/label``       labeller  no     :class:`protocol.messages.Label`            as ``imu``
``gammawear/v1/<id>/config``      operator  yes    :class:`protocol.messages.Config`           1
``gammawear/v1/<id>/debug``       gateway   no     :class:`protocol.messages.Debug`            1
``gammawear/v1/<id>/raw``         device    no     :class:`protocol.messages.RawTrace`, debug  as ``imu``
``gammawear/v1/<id>/activity``    gateway   yes    :class:`protocol.messages.Activity`         0
``gammawear/v1/<id>/frame``       camera    no     :class:`protocol.frame.Chunk`, binary       0, or 1 by option
``gammawear/v1/<id>/truth``       labeller  no     :class:`protocol.messages.Truth`            as ``frame``
``gammawear/v1/<id>/detections``  gateway   yes    :class:`protocol.messages.Detections`       0
================================= ========= ====== =========================================== =====================

``<id>`` is 1 to 32 of ``A-Z a-z 0-9 _ -``. A gateway is a device of its own for ``status``: its id is ``gateway``,
which no wearable may take.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

from quantization.errors import MessageError

ROOT: Final = "gammawear/v1"
GATEWAY_ID: Final = "gateway"
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")


class Kind(StrEnum):
    """The last level of a topic."""

    IMU = "imu"
    STATUS = "status"
    LABEL = "label"
    CONFIG = "config"
    DEBUG = "debug"
    RAW = "raw"
    ACTIVITY = "activity"
    FRAME = "frame"
    TRUTH = "truth"
    DETECTIONS = "detections"


_KINDS: Final = frozenset(Kind)


def check_device_id(device: str) -> str:
    """The id itself.

    Raises:
        MessageError: ``topic``: not 1 to 32 of ``A-Z a-z 0-9 _ -``.
    """
    if not _ID.fullmatch(device):
        raise MessageError("topic", f"not a device id: {device[:64]!r} (1 to 32 of A-Z a-z 0-9 _ -)")
    return device


def topic(device: str, kind: Kind) -> str:
    """The topic of one device.

    >>> topic("w1", Kind.IMU)
    'gammawear/v1/w1/imu'
    """
    return f"{ROOT}/{check_device_id(device)}/{kind}"


def every(kind: Kind) -> str:
    """The subscription filter for all devices."""
    return f"{ROOT}/+/{kind}"


def parse(name: str) -> tuple[str, Kind]:
    """Device id and kind of a topic.

    Raises:
        MessageError: ``topic``: not one of ours.

    >>> parse("gammawear/v1/w1/imu")
    ('w1', <Kind.IMU: 'imu'>)
    """
    parts = name.split("/")
    if len(parts) != 4 or f"{parts[0]}/{parts[1]}" != ROOT or parts[3] not in _KINDS:
        raise MessageError("topic", f"not a topic of ours: {name[:128]!r}")
    return check_device_id(parts[2]), Kind(parts[3])
