"""What the gateway's tests share: a pipeline whose network answers at once, and a device that makes packets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from gateway.batcher import infer
from gateway.bundles import BundleStore
from gateway.pipeline import Limits, Pipeline
from gateway.windows import Window
from models.bundle import Bundle
from protocol.messages import Activity, Label, Status
from protocol.packet import MAX_SAMPLES, SEQUENCE_MODULUS, TICK_MODULUS, Packet, samples_that_fit
from quantization.codebook import Codebook
from quantization.imu import Codes

torch.set_num_threads(1)  # as in the service: two on two busy cores are ten times slower

START_NS = 1_790_000_000 * 10**9


@dataclass
class Rig:
    """A pipeline without a broker: windows are answered as soon as they are cut."""

    folder: Path
    limits: Limits = field(default_factory=Limits)
    answer: bool = True

    def __post_init__(self) -> None:
        self.now_ns = START_NS
        self.set_ns = 0
        self.windows: list[Window] = []
        self.published: list[tuple[str, Activity]] = []
        self.pipeline = Pipeline(
            BundleStore([self.folder]),
            submit=self._submit,
            publish=lambda topic, payload: self.published.append((topic, Activity.parse(payload))),
            limits=self.limits,
            now_ns=lambda: self.now_ns,
            monotonic_ns=lambda: self.now_ns - self.set_ns,
        )

    def _submit(self, window: Window) -> None:
        self.windows.append(window)
        if self.answer:
            self.pipeline.answered([window], infer(window.bundle, [window])[0])

    def feed(
        self, device: str, payload: bytes, *, kind: str = "imu", retain: bool = False, taken_ns: int | None = None
    ) -> None:
        topic = f"gammawear/v1/{device}/{kind}"
        self.pipeline.feed(topic, payload, self.now_ns, retain=retain, taken_ns=taken_ns)

    def label(self, device: str, activity: str, start: int, end: int) -> None:
        label = Label(activity=activity, from_tick=start % TICK_MODULUS, to_tick=end % TICK_MODULUS)
        self.feed(device, label.to_json(), kind="label")

    def status(self, device: str, *, retain: bool = False, **fields: object) -> None:
        status = Status.model_validate({"state": "online", **fields})
        self.feed(device, status.to_json(), kind="status", retain=retain)

    def set_clock(self, seconds: float) -> None:
        """The system's clock is set, ahead or back; no time passes."""
        self.set_ns += int(seconds * 1e9)
        self.now_ns += int(seconds * 1e9)

    def pass_ms(self, ms: float) -> None:
        self.now_ns += int(ms * 1e6)
        self.pipeline.sweep()

    @property
    def imu_outcomes(self) -> int:
        """Every packet is in exactly one of these."""
        p = self.pipeline
        losses = p.losses
        held = sum(device.reassembler.held for device in p.devices)
        done = losses.accepted + losses.duplicate + losses.late + losses.unplaced
        return done + held + p.refusals.packets.total()


@dataclass
class Wearer:
    """Makes one device's packets: random codes, ``samples`` a packet, at ``rate_hz`` of its own."""

    bundle: Bundle
    name: str = "w1"
    samples: int = 52
    tick: float = 0.0
    sequence: int = 0
    seed: int = 0
    rate_hz: float | None = None

    def __post_init__(self) -> None:
        self.book: Codebook = self.bundle.codebook
        self.samples = min(self.samples, MAX_SAMPLES, samples_that_fit(len(self.book.channels), self.book.bits))
        self.rng = np.random.default_rng(self.seed)
        self.codes: list[Codes] = []

    @property
    def period_ms(self) -> float:
        return 1000 / (self.rate_hz or self.book.rate_hz)

    def packet(self) -> bytes:
        shape = (self.samples, len(self.book.channels))
        codes = self.rng.integers(0, 2**self.book.bits, shape, dtype=np.uint8)
        packet = Packet.from_codes(codes, self.book, sequence=self.sequence, tick_ms=round(self.tick))
        self.codes.append(codes)
        self.sequence = (self.sequence + 1) % SEQUENCE_MODULUS
        self.tick += self.samples * self.period_ms
        return bytes(packet)

    def send(self, rig: Rig, packets: int) -> None:
        """Send packets as they are made: a packet's length apart."""
        for _ in range(packets):
            packet = self.packet()
            rig.now_ns += int(self.samples * self.period_ms * 1e6)
            rig.feed(self.name, packet)
