"""One row of the page's list for each device: its view, its recent confidence, and what its radio would cost."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import deque
from typing import Any, Final

from gateway.devices import Device
from gateway.pipeline import DeviceState
from gateway.traffic import RAW_BITS, RecentTraffic
from gateway.views import DeviceView, view_device
from protocol.energy import SENSOR_UA, EnergyLedger, Phy
from protocol.messages import Activity
from protocol.packet import HEADER_BYTES, MAX_PAYLOAD_BYTES

CONFIDENCES: Final = 60
"""At most one a second, so about a minute."""
CONNECTION_INTERVAL_MS: Final = 30.0
PERIPHERAL_LATENCY: Final = 0
PHY: Final[Phy] = "1M"
_DECIMALS: Final = {
    "probability": 4,
    "bits_per_value": 4,
    "bytes_per_s": 2,
    "mqtt_bytes_per_s": 2,
    "raw12_bytes_per_s": 2,
}


to_json: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
"""On one line; a figure that is not finite is a mistake."""
_VIEWED: Final = tuple(field.name for field in dataclasses.fields(DeviceView))


class Row:
    """What the page keeps of one device: about 6 kB.

    Args:
        device: read when asked.

    Attributes:
        changed: viewers have not got it as it is.
    """

    __slots__ = ("_answer", "_confidences", "_fresh", "_head", "_signature", "changed", "device")

    def __init__(self, device: Device) -> None:
        self.device = device
        self.changed = False
        self._fresh = False
        self._answer: Activity | None = None
        self._confidences: deque[str] = deque(maxlen=CONFIDENCES)
        self._head = ""
        self._signature: tuple[object, ...] = ()

    @property
    def ready(self) -> bool:
        """It has been brought up to date at least once."""
        return bool(self._head)

    def sample(self) -> None:
        """Note the confidence of an answer that is new."""
        answer = self.device.activity
        self._fresh = answer is not None and answer is not self._answer
        if answer is None or not self._fresh:
            return
        self._answer = answer
        self._confidences.append(f'[{answer.to_ms},{answer.probability:.4f},"{answer.activity}"]')

    def refresh(self, state: DeviceState, label: str | None, now_ns: int) -> None:
        """Bring it up to date.

        Args:
            state: the device's.
            label: what somebody at a page says that its wearer does.
            now_ns: UTC.
        """
        device, answer = self.device, self.device.activity
        signature = (
            device.touched_ns,
            answer.from_tick if answer is not None else None,
            device.truth_from_tick,
            device.reassembler.losses.lost,
            device.streaming(now_ns),
            state,
            label,
        )
        if signature == self._signature:
            return
        self._head = to_json(_fields(device, state, label, now_ns)).removesuffix("}")
        self._signature = signature
        self.changed = True

    def whole(self) -> str:
        """JSON with every confidence that is kept."""
        return f'{self._head},"confidence":[{",".join(self._confidences)}]}}'

    def change(self) -> str:
        """JSON with the confidence of this second, if there is one: viewers get it now."""
        self.changed = False
        new = self._confidences[-1] if self._fresh else ""
        return f'{self._head},"confidence":[{new}]}}'


def _fields(device: Device, state: DeviceState, label: str | None, now_ns: int) -> dict[str, Any]:
    view = view_device(device, state, now_ns)
    fields: dict[str, Any] = {name: getattr(view, name) for name in _VIEWED}
    for name, decimals in _DECIMALS.items():
        if fields[name] is not None:
            fields[name] = round(fields[name], decimals)
    status = device.status
    fields["labelled"] = device.truth is not None
    fields["label"] = label
    fields["error"] = status.error if status is not None else None
    fields["bridge"] = status.bridge if status is not None else None
    fields["sensor"] = status.sensor if status is not None else None
    return fields | energy(device.recent, fields["sensor"])


def energy(recent: RecentTraffic, sensor: str | None) -> dict[str, Any]:
    """What the radio would cost at 3 V on a BLE link, as sent and at 12 bits, and with the sensor if its part is known.

    See :class:`protocol.energy.EnergyLedger` for what is counted and what is not.
    """
    if not recent.packets or not recent.ms:
        return {"radio_ua": None, "radio_raw12_ua": None, "whole_ua": None, "ledger": None}
    part = next(iter((sensor or "").split()), "").lower()
    sent = _ledger(recent, recent.packets, recent.packet, SENSOR_UA.get(part)).microamperes()
    # Twelve-bit values of one packet may take several notifications.
    payload = recent.values * RAW_BITS / 8
    notifications = recent.packets * math.ceil(round(payload / recent.packets, 6) / MAX_PAYLOAD_BYTES)
    raw12 = _ledger(recent, notifications, payload + HEADER_BYTES * notifications, None).microamperes()
    return {
        "radio_ua": round(sent["data"] + sent["empty events"], 2),
        "radio_raw12_ua": round(sum(raw12.values()), 2),
        "whole_ua": round(sum(sent.values()), 2),
        "ledger": {
            "packet_s": round(recent.ms / recent.packets / 1000, 3),
            "connection_interval_ms": CONNECTION_INTERVAL_MS,
            "peripheral_latency": PERIPHERAL_LATENCY,
            "phy": PHY,
            "parts": {name: round(current, 2) for name, current in sent.items()},
            "raw12_parts": {name: round(current, 2) for name, current in raw12.items()},
        },
    }


def _ledger(recent: RecentTraffic, packets: float, packet_bytes: float, sensor_ua: float | None) -> EnergyLedger:
    return EnergyLedger(
        packets=packets,
        packet_bytes=packet_bytes,
        seconds=recent.ms / 1000,
        connection_interval_ms=CONNECTION_INTERVAL_MS,
        peripheral_latency=PERIPHERAL_LATENCY,
        phy=PHY,
        sensor_ua=sensor_ua,
    )
