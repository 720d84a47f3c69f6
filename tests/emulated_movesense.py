"""What a Movesense answers and sends over GSP: the pure half of an emulated one.

Written from movesense.com/docs/esw/gatt_sensordata_protocol, apart from the profile, so that the two check each other.
"""

import re
import struct
from typing import ClassVar

import numpy as np

SERVICE = "34802252-7185-4d5d-b431-630e7050e8f0"
COMMAND = "34800001-7185-4d5d-b431-630e7050e8f0"
NOTIFY = "34800002-7185-4d5d-b431-630e7050e8f0"
MEMBER_SERVICE = "0000fdf3-0000-1000-8000-00805f9b34fb"


class EmulatedMovesense:
    """One subscription, to ``/Meas/IMU6``.

    Args:
        mtu: of ATT; a notification carries three bytes less.
        first_ms: its clock when it is switched on.
    """

    services: ClassVar = {SERVICE: {COMMAND: {"write", "write-without-response"}, NOTIFY: {"notify"}}}
    advertised = ("Movesense 204730000081", (MEMBER_SERVICE,))

    def __init__(self, *, mtu=161, first_ms=0):
        self._most = mtu - 3
        self._first_ms = first_ms
        self._sent = 0  # samples
        self._reference = 0
        self._waiting = np.empty((0, 6))
        self.rate_hz = 0.0

    @property
    def streaming(self):
        return self._reference > 0

    def on_read(self, characteristic):
        raise AssertionError(f"{characteristic} cannot be read")

    def on_write(self, characteristic, data):
        assert characteristic == COMMAND
        if len(data) < 2 or data[1] == 0:
            return []
        command, reference = data[0], data[1]
        if command == 0:
            return [(NOTIFY, bytes([1, reference]) + b"Hello")]
        if command == 1:
            return [(NOTIFY, struct.pack("<BBH", 1, reference, self._subscribe(reference, data[2:])))]
        if command == 2 and reference == self._reference:
            self._reference = 0
            return [(NOTIFY, struct.pack("<BBH", 1, reference, 200))]
        return [(NOTIFY, struct.pack("<BBH", 1, reference, 404))]

    def _subscribe(self, reference, path):
        found = re.fullmatch(rb"/Meas/IMU6/(13|26|52|104|208)", path)
        if found is None:
            return 404
        self._reference, self.rate_hz = reference, float(found[1])
        return 200

    def encode(self, values):
        sent = []
        if not self.streaming:
            return sent
        self._waiting = np.concatenate([self._waiting, values])
        n = int(self.rate_hz) // 13
        while len(self._waiting) >= n:
            rows, self._waiting = self._waiting[:n], self._waiting[n:]
            time_ms = self._first_ms + round(1000 * self._sent / self.rate_hz)
            self._sent += n
            payload = struct.pack("<I", time_ms % 2**32)
            payload += (rows[:, :3] * 9.80665).astype("<f4").tobytes() + rows[:, 3:].astype("<f4").tobytes()
            room = self._most - 2
            for at in range(0, len(payload), room):
                kind = 3 if at else 2
                sent.append((NOTIFY, bytes([kind, self._reference]) + payload[at : at + room]))
        return sent
