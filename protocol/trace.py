"""The recording file: one take of one device, as integers.

A trace is a safetensors file (no code is run on loading) with the tensors ``counts`` int32 [n, C], ``tick_ms`` int64
[n] (milliseconds from the first sample, not wrapped, rising) and ``label`` int16 [n] (index into the label names, -1 =
unlabelled), and the metadata ``format`` = "gammawear-trace-1", ``sensor`` and ``labels`` (JSON), ``rate_hz``,
``subject`` and ``source``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from protocol.messages import SourceKind
from quantization.errors import SensorError, TraceError
from quantization.imu import Counts
from quantization.sensor import Sensor

FORMAT: Final = "gammawear-trace-1"
SUFFIX: Final = ".gwtrace"


@dataclass(frozen=True, eq=False)
class Trace:
    """One take of one device.

    Args:
        sensor: the part, which names the channels and gives counts their meaning.
        rate_hz: nominal sampling rate, 1 .. 1000.
        counts: int32 ``[n, C]``.
        tick_ms: int64 ``[n]``, rising; gaps are gaps.
        label: int16 ``[n]``, index into ``labels``, -1 = unlabelled.
        labels: label names.
        subject: who wore it.
        source: where the samples come from.

    Raises:
        TraceError: sizes that do not fit, ticks that do not rise, labels without a name, counts beyond the ADC.
    """

    sensor: Sensor
    rate_hz: float
    counts: Counts
    tick_ms: NDArray[np.int64]
    label: NDArray[np.int16]
    labels: tuple[str, ...]
    subject: str = ""
    source: SourceKind = "device"

    def __post_init__(self) -> None:
        n = len(self.counts)
        if self.counts.shape != (n, len(self.channels)) or self.tick_ms.shape != (n,) or self.label.shape != (n,):
            raise TraceError(
                f"counts {self.counts.shape}, ticks {self.tick_ms.shape} and labels {self.label.shape} do not fit"
            )
        if n == 0:
            raise TraceError("a trace without samples")
        if not 1 <= self.rate_hz <= 1000:
            raise TraceError(f"a rate of {self.rate_hz} Hz is not in 1 .. 1000")
        if (self.tick_ms[1:] <= self.tick_ms[:-1]).any():  # a difference could overflow
            raise TraceError("ticks must rise")
        if self.label.min() < -1 or self.label.max() >= len(self.labels):
            raise TraceError(f"labels run from {self.label.min()} to {self.label.max()}; names: {len(self.labels)}")
        if self.counts.min() < self.sensor.count_min or self.counts.max() > self.sensor.count_max:
            raise TraceError(f"counts are beyond {self.sensor.adc_bits} bits")

    @property
    def channels(self) -> tuple[str, ...]:
        """Channel names, in the order of the columns."""
        return self.sensor.channels

    def save(self, path: Path) -> None:
        """Write the file.

        Raises:
            TraceError: it cannot be written.
        """
        metadata = {
            "format": FORMAT,
            "sensor": json.dumps(self.sensor.to_dict()),
            "labels": json.dumps(list(self.labels)),
            "rate_hz": repr(self.rate_hz),
            "subject": self.subject,
            "source": self.source,
        }
        tensors = {"counts": self.counts, "tick_ms": self.tick_ms, "label": self.label}
        try:
            save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path, metadata=metadata)
        except (OSError, SafetensorError) as error:
            raise TraceError(f"cannot write {path}: {error}") from error


def load_trace(path: Path) -> Trace:
    """Read a trace.

    Raises:
        TraceError: absent, not a trace, or not valid; the message names the file.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise TraceError(f"not a trace (format {metadata.get('format')!r}, expected {FORMAT!r})")
            source = metadata.get("source", "device")
            if source not in get_args(SourceKind):
                raise TraceError(f"source {source!r} is none of {get_args(SourceKind)}")
            counts, tick_ms, label = (file.get_tensor(name) for name in ("counts", "tick_ms", "label"))
            return Trace(
                sensor=Sensor.from_dict(json.loads(metadata["sensor"])),
                rate_hz=float(metadata["rate_hz"]),
                counts=_typed(counts, np.int32, "counts"),
                tick_ms=_typed(tick_ms, np.int64, "tick_ms"),
                label=_typed(label, np.int16, "label"),
                labels=tuple(str(name) for name in json.loads(metadata["labels"])),
                subject=metadata.get("subject", ""),
                source=cast("SourceKind", source),
            )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError, SensorError) as error:
        raise TraceError(f"{path}: {error}") from error


def _typed(array: NDArray[np.generic], kind: type[np.signedinteger], name: str) -> NDArray:  # type: ignore[type-arg]
    if array.dtype != kind:
        raise TraceError(f"{name} must be {np.dtype(kind).name}, not {array.dtype}")
    return array
