"""The parameters of a generated wearer, and where they are kept: ``wearers/<name>.json``.

What they mean is told in :mod:`device_emulator.synthetic`, which makes samples of them; ``benchmarks/fit_wearers.py``
makes them of a published data set. They are statistics: no recording can be got back from them.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from protocol.messages import LabelName
from quantization.errors import DatasetError

FOLDER: Final = Path(__file__).parent / "wearers"
"""The wearers that come with the package."""
MAX_FILE_BYTES: Final = 100_000

Ints = Annotated[list[int], Field(max_length=4096)]
Share = Annotated[float, Field(gt=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Origin(_Strict):
    """What a wearer was fitted to."""

    dataset: str
    licence: str
    citation: str
    url: str
    subjects: list[str]
    command: str


class Kind(_Strict):
    """What bouts of one kind have in common among all personas. ``W`` = coefficients of a channel."""

    label: LabelName
    trend: Annotated[int, Field(ge=1, le=64)]
    """Cosine terms, the constant included."""
    harmonics: Annotated[int, Field(ge=0, le=32)] = 0
    envelope: Annotated[list[float], Field(max_length=16)] = []
    """Strength of the gait at evenly spaced times from a bout's beginning to its end; empty = constant."""
    deviation: Annotated[list[Ints], Field(max_length=32)]
    """``[R][C * W]``, units: how coefficients deviate together, for a standard normal score each."""
    burst: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Standard deviation of the logarithm of the noise's momentary strength."""

    @property
    def width(self) -> int:
        """Coefficients of one channel: trend, then cosine and sine of each harmonic."""
        return self.trend + 2 * self.harmonics


class Gait(_Strict):
    """How one persona keeps time."""

    hz: Annotated[float, Field(gt=0, le=10)]
    """Median fundamental frequency."""
    log_sd: Annotated[float, Field(ge=0, le=1)]
    """Standard deviation of its logarithm between bouts."""
    phase: float
    """Radian at the beginning of the (longer than it lasts) bout, and how concentrated it is (von Mises)."""
    concentration: Annotated[float, Field(ge=0, le=1000)]
    glide_sd: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Relative change of the frequency from beginning to end: one standard deviation."""
    wander: Annotated[float, Field(ge=0, le=5)] = 0.0
    """Random walk of the phase: radian after one second, one standard deviation."""


class Bout(_Strict):
    """One way in which a persona does a kind of bout."""

    share: Share = 1.0
    """How often it is this way, among the ways of the same kind."""
    seconds: Annotated[float, Field(gt=0.05, le=600)]
    """Median duration, and the standard deviation of its logarithm."""
    log_sd: Annotated[float, Field(ge=0, le=1)]
    mean: Ints
    """``[C * W]``, units."""
    spread: Annotated[float, Field(ge=0, le=10)]
    """Scale of the kind's deviation."""
    noise_db: Ints
    """``[C * B]``: root mean square in each band, dB re unit."""
    gait: Gait | None = None


class Persona(_Strict):
    """One person."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    bouts: dict[str, Annotated[list[Bout], Field(min_length=1, max_length=8)]]
    """By kind: the ways to do it."""


class Wearer(_Strict):
    """``wearers/<name>.json``. Coefficients are integers in ``unit`` of their channel."""

    format: Literal["gammawear-wearer-1"] = "gammawear-wearer-1"
    title: str
    origin: Origin
    channels: Annotated[list[str], Field(min_length=1, max_length=16)]
    labels: Annotated[list[LabelName], Field(min_length=1, max_length=256)]
    unit: list[Annotated[float, Field(gt=0)]]
    """``[C]``: g or °/s."""
    band_hz: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2, max_length=17)]
    """Edges of the noise's ``B`` bands, rising."""
    mix: list[list[float]]
    """``[C][C]``: how independent noise becomes correlated; rows of length 1."""
    lead_s: Annotated[float, Field(ge=0.02, le=5)]
    """By how much a bout is drawn longer than it lasts, at either end."""
    schedule: Annotated[list[str], Field(min_length=1, max_length=64)]
    """Kinds of bout."""
    order: Literal["cycle", "shuffle"]
    """The schedule over and over, or at random and never the same twice in a row."""
    kinds: dict[str, Kind]
    personas: Annotated[list[Persona], Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        channels, bands = len(self.channels), len(self.band_hz) - 1
        _require(len(self.unit) == channels, "unit", "one per channel")
        _require([len(row) for row in self.mix] == [channels] * channels, "mix", "channels x channels")
        _require(bool((np.diff(self.band_hz) > 0).all()), "band_hz", "must rise")
        _require(set(self.schedule) <= set(self.kinds), "schedule", "names a kind that is not there")
        for name, kind in self.kinds.items():
            _require(kind.label in self.labels, name, f"label {kind.label} is not in labels")
            _require(all(len(row) == channels * kind.width for row in kind.deviation), name, "size of deviation")
        for persona in self.personas:
            _require(set(self.schedule) <= set(persona.bouts), persona.name, "lacks a kind of bout")
            for name in self.schedule:
                kind = self.kinds[name]
                for bout in persona.bouts[name]:
                    where = f"{persona.name} {name}"
                    _require(len(bout.mean) == channels * kind.width, where, "size of mean")
                    _require(len(bout.noise_db) == channels * bands, where, "size of noise_db")
                    _require((bout.gait is not None) == (kind.harmonics > 0), where, "gait and harmonics go together")
        names = [persona.name for persona in self.personas]
        _require(len(set(names)) == len(names), "personas", "names repeat")
        return self


def _require(fits: bool, where: str, what: str) -> None:  # noqa: FBT001
    if not fits:
        raise ValueError(f"{where}: {what}")


def wearers() -> list[str]:
    """Names of the wearers that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def read_wearer(path: Path) -> Wearer:
    """Read a wearer's parameters.

    Raises:
        DatasetError: absent, too large, or not valid; the message names the file and the field.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DatasetError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
        return Wearer.model_validate(json.loads(path.read_bytes()))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "wearer"
        raise DatasetError(f"{path}: {where}: {first['msg']}") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DatasetError(f"{path}: not a wearer's parameters: {error}") from error


@cache
def load_wearer(name: str) -> Wearer:
    """A wearer that comes with the package. :class:`DatasetError` if there is none of that name, or it is damaged."""
    if name not in wearers():
        raise DatasetError(f"no wearer {name!r}; there are {', '.join(wearers()) or 'none'}")
    return read_wearer(FOLDER / f"{name}.json")


def lead_samples(wearer: Wearer, rate_hz: float) -> int:
    """Samples by which a bout is drawn longer than it lasts, at either end."""
    return max(1, round(wearer.lead_s * rate_hz))
