"""Where a camera's frames come from: a folder of RAW files, or a scene that is generated as it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from device_emulator.camera.raw_files import RawLayout, raw_paths, read_raw
from device_emulator.camera.scenes import CLASSES, Walkabout
from protocol.frame import MAX_BINNING
from protocol.messages import SourceKind, TrueBox
from quantization.errors import FrameError
from quantization.exposure import Noise, expose
from quantization.raw import CameraSensor, Cfa, RawFrame

EMULATED: Final = CameraSensor("emulated", Cfa.RGGB)
"""12 bits, black at 0: the part of a camera that watches a generated scene."""
CACHED_FRAMES: Final = 16
"""Frames that a looping folder keeps, binned."""


@dataclass(frozen=True, eq=False)
class Exposure:
    """One frame as it came from the ADC.

    Args:
        frame: the mosaic.
        binning: photosites of the sensor, along a side, that one of ``frame`` stands for.
        truth: what is to be found in it, in photosites of the sensor; None = not known.
    """

    frame: RawFrame
    binning: int = 1
    truth: tuple[TrueBox, ...] | None = None


class FrameSource(Protocol):
    """A camera, or a recording of one."""

    @property
    def kind(self) -> SourceKind:
        """Generated, or from files."""

    @property
    def name(self) -> str:
        """Of the part or the folder, for ``status``."""

    @property
    def adc_bits(self) -> int:
        """Of the frames."""

    def at(self, number: int, t_s: float) -> Exposure | None:
        """The frame of that number, from 0, taken ``t_s`` seconds after the start; None = the source has ended.

        Raises:
            FrameError: this frame cannot be read; the next may.
        """


class FolderSource:
    """Every RAW file of a folder in the order of their names, over and over if asked to.

    Args:
        path: a folder, or one file.
        layout: of headerless files; None: as a ``layout.json`` beside them says.
        max_pixels: larger frames are binned until they have fewer photosites.
        loop: begin again after the last.

    Raises:
        FrameError: no RAW file is there, or not one of them can be read.
    """

    kind: SourceKind = "dataset"

    def __init__(self, path: Path, *, layout: RawLayout | None, max_pixels: int, loop: bool) -> None:
        self._paths: Sequence[Path] = raw_paths(path) if path.is_dir() else [path]
        if not self._paths:
            raise FrameError("file", f"{path}: no RAW file is in this folder")
        self._loop = loop
        self._max_pixels = max_pixels
        self._layout = layout
        self._exposed = lru_cache(maxsize=CACHED_FRAMES)(self._expose)
        self.name = path.name[:64]
        self.adc_bits = self._first_readable().frame.sensor.adc_bits

    def _expose(self, path: Path) -> Exposure:
        frame = read_raw(path, self._layout)
        binning = 1
        while frame.counts.size // binning**2 > self._max_pixels and binning < MAX_BINNING:
            binning += 1
        return Exposure(frame.binned(binning), binning)

    def _first_readable(self) -> Exposure:
        reasons = []
        for path in self._paths:
            try:
                return self._exposed(path)
            except FrameError as error:
                reasons.append(error)
        raise reasons[0]

    def at(self, number: int, t_s: float) -> Exposure | None:  # noqa: ARG002 - a file has no time
        """See :class:`FrameSource`."""
        if number >= len(self._paths) and not self._loop:
            return None
        return self._exposed(self._paths[number % len(self._paths)])


class SceneSource:
    """A street that nobody has seen: figures that come and go, generated, with the noise of a real sensor.

    Args:
        seed: of scene and noise.
        width: photosites.
        height: photosites.
        light: multiplies the scene's light: 0.1 is dusk.
    """

    kind: SourceKind = "synthetic"
    name = EMULATED.name
    adc_bits = EMULATED.adc_bits

    def __init__(self, seed: int, *, width: int = 320, height: int = 240, light: float = 1.0) -> None:
        self._scene = Walkabout(seed, width, height)
        self._seed = seed
        self._light = np.float32(light)
        self._noise = Noise.draw(np.random.default_rng([seed, 0]))

    def at(self, number: int, t_s: float) -> Exposure:
        """See :class:`FrameSource`."""
        scene = self._scene.at(t_s)
        rng = np.random.default_rng([self._seed, 1, number])
        frame = expose(scene.light * self._light, EMULATED, self._noise, rng)
        truth = tuple(TrueBox(label=CLASSES[b.label], box=(b.x0, b.y0, b.x1, b.y1)) for b in scene.boxes)
        return Exposure(frame, truth=truth)
