"""From pictures to what a camera node's sensor would have counted: the examples that a detector learns from.

A :class:`View` is one picture in linear light with its boxes. :class:`Shots` photographs views: a window on the scene
(scaled, shifted, flipped), a camera, an exposure, a filter array, noise, an ADC. Everything that moves the scene is
done before the filter array, so that the mosaic's colours stay where they belong; noise and rounding come last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from models.training import digest_of
from models.vision.pictures import Boxes, Picture
from models.vision.unprocess import Camera, linearised
from quantization.exposure import Light, Noise, demosaiced, expose
from quantization.raw import ORDINARY_LIGHT, CameraSensor, Cfa, RawFrame, sites, to_planes

WIDTH: Final = 320
HEIGHT: Final = 240
"""Photosites of a mosaic in training and tests."""
OVERSAMPLED: Final = 1.5
"""Views are kept at this multiple of a mosaic's size: a window may zoom in without blur."""
SENSOR: Final = CameraSensor("unprocessed", Cfa.RGGB)
"""12 bits, black at 0: what pictures are turned into."""
DUSK: Final = (0.1, 0.55)
"""Exposures of shots at dusk, relative to real RAW in ordinary light."""
LEAST_VISIBLE: Final = 0.3
"""A window keeps the box of an object if so much of it is inside."""


@dataclass(frozen=True)
class Variation:
    """How shots differ in training, but for camera and noise, which always do.

    Args:
        exposures: between these, evenly on a logarithmic scale.
        dusk_share: of the shots, so many are at :data:`DUSK` instead: cameras are also used after sunset.
        zooms: size of the scene, between these, likewise.
        shift: of the window's centre, at most, as a share of the scene's sides.
    """

    exposures: tuple[float, float] = (0.55, 1.8)
    dusk_share: float = 1 / 3
    zooms: tuple[float, float] = (0.7, 1.4)
    shift: float = 0.25


@dataclass(frozen=True, eq=False)
class View:
    """A scene in linear light.

    Args:
        name: of the picture.
        linear: float32 ``[H, W, 3]``; 0.0 .. 1.0.
        boxes: float32 ``[n, 4]`` in its pixels.
        labels: int64 ``[n]``.
        camera: what turns linear sRGB into light; None: it is light already.
    """

    name: str
    linear: Light
    boxes: Boxes
    labels: NDArray[np.int64]
    camera: Camera | None


@dataclass(frozen=True, eq=False)
class Shot:
    """A view, photographed.

    Args:
        frame: what the sensor counted.
        boxes: float32 ``[n, 4]`` in photosites.
        labels: int64 ``[n]``.
    """

    frame: RawFrame
    boxes: Boxes
    labels: NDArray[np.int64]

    @property
    def planes(self) -> NDArray[np.float64]:
        """``[4, H/2, W/2]`` fractions of full scale."""
        sensor = self.frame.sensor
        counts = to_planes(self.frame.counts, sensor.cfa)
        return np.stack([sensor.to_light(p, at) for p, at in zip(counts, sensor.cfa.positions, strict=True)])


def view_of(picture: Picture, seed: int) -> View:
    """A picture in linear light, at most :data:`OVERSAMPLED` times the mosaic's size, with a camera of its own."""
    linear, boxes = _reduced(linearised(picture.srgb), picture.boxes)
    camera = Camera.draw(np.random.default_rng([seed, *picture.name.encode()]))
    return View(picture.name, linear, boxes, picture.labels, camera)


def view_of_raw(name: str, frame: RawFrame, boxes: Boxes, labels: NDArray[np.int64]) -> View:
    """A RAW frame in the light of its own camera, at most :data:`OVERSAMPLED` times the mosaic's size.

    Args:
        name: of the view.
        frame: of any size; it keeps its noise, much less of it where it is larger than the view.
        boxes: float32 ``[n, 4]`` in its photosites.
        labels: int64 ``[n]``.
    """
    height, width = frame.counts.shape
    # Twice the view's size: colours that are interpolated here are averaged again below.
    factor = max(1, int(max(width / WIDTH, height / HEIGHT) / (2 * OVERSAMPLED)))
    binned = frame.binned(factor)
    sensor = binned.sensor
    behind = np.empty(binned.counts.shape, dtype=np.float32)
    for position in range(4):
        behind[sites(position)] = np.clip(sensor.to_light(binned.counts[sites(position)], position), 0, 1)
    # Binning cuts off what does not fill a last cell.
    kept = np.array(2 * behind.shape[::-1], dtype=np.float32)
    linear, smaller = _reduced(demosaiced(behind, sensor.cfa), np.minimum(boxes / np.float32(factor), kept))
    return View(name, linear, smaller, labels, None)


def _reduced(linear: Light, boxes: Boxes) -> tuple[Light, Boxes]:
    """Light at most :data:`OVERSAMPLED` times the mosaic's size, and its boxes."""
    height, width = linear.shape[:2]
    scale = min(1.0, OVERSAMPLED * min(WIDTH / width, HEIGHT / height))
    size = (max(2, round(height * scale)), max(2, round(width * scale)))
    chw = torch.from_numpy(linear).permute(2, 0, 1)[None]
    small = functional.interpolate(chw, size, mode="bilinear", align_corners=False, antialias=True)
    stretched = np.array([size[1] / width, size[0] / height] * 2, dtype=np.float32)
    return small[0].permute(1, 2, 0).numpy(), boxes * stretched


def brightness(views: Sequence[View]) -> float:
    """The factor that brings the mean light of ``views`` to that of real RAW."""
    means = [float((v.camera.undo(v.linear) if v.camera else v.linear).mean()) for v in views]
    return ORDINARY_LIGHT / max(float(np.mean(means)), 1e-6)


class Shots:
    """Photographs of some views.

    Args:
        views: what to photograph.
        gain: of every exposure: :func:`brightness` of the training set.
        seed: of everything random.
        variation: in training.
        width: of the mosaics, photosites.
        height: likewise.
    """

    def __init__(
        self,
        views: Sequence[View],
        *,
        gain: float,
        seed: int,
        variation: Variation | None = None,
        width: int = WIDTH,
        height: int = HEIGHT,
    ) -> None:
        self.views = list(views)
        self._gain = gain
        self._seed = seed
        self._variation = variation or Variation()
        self._width = width
        self._height = height

    def describe(self) -> list[object]:
        """What tells these shots from others; fit for JSON."""
        seen = digest_of(one for view in self.views for one in (view.linear, view.boxes, view.labels))
        cameras = digest_of(view.camera.gains for view in self.views if view.camera is not None)
        return [self._seed, self._gain, self._width, self._height, asdict(self._variation), seen, cameras]

    def varied(self, index: int, epoch: int) -> Shot:
        """A view as training sees it in one epoch: another window, camera, exposure and noise each time."""
        rng = np.random.default_rng([self._seed, 1, epoch, index])
        view = self.views[index]
        camera = view.camera and Camera.draw(rng)
        varied = self._variation
        exposures = DUSK if rng.random() < varied.dusk_share else varied.exposures
        exposure = float(np.exp(rng.uniform(*np.log(exposures))))
        zoom = float(np.exp(rng.uniform(*np.log(varied.zooms))))
        offset = rng.uniform(-varied.shift, varied.shift, 2)
        return self._shoot(view, camera, exposure, rng, zoom=zoom, offset=offset, flip=bool(rng.integers(2)))

    def plain(self, index: int, light: float = 1.0) -> Shot:
        """A whole view as tests see it; the same shot every time.

        Args:
            index: of the view.
            light: multiplies the scene's light before noise and rounding.
        """
        rng = np.random.default_rng([self._seed, 2, index])
        view = self.views[index]
        return self._shoot(view, view.camera, light, rng, zoom=1.0, offset=np.zeros(2), flip=False)

    def _shoot(
        self,
        view: View,
        camera: Camera | None,
        exposure: float,
        rng: np.random.Generator,
        *,
        zoom: float,
        offset: NDArray[np.float64],
        flip: bool,
    ) -> Shot:
        height, width = view.linear.shape[:2]
        # A picture's longer side fills the mosaic at zoom 1: photosites per pixel of the view.
        scale = zoom * min(self._width / width, self._height / height)
        # The window's centre, in pixels of the view.
        centre = np.array([width, height]) * (0.5 + offset)
        sign = -1.0 if flip else 1.0
        # grid_sample's affine takes the mosaic's -1 .. 1 to the view's -1 .. 1.
        span = np.array([self._width / width, self._height / height]) / scale
        shift = 2 * centre / np.array([width, height]) - 1
        affine = torch.tensor([[sign * span[0], 0.0, shift[0]], [0.0, span[1], shift[1]]], dtype=torch.float32)
        grid = functional.affine_grid(affine[None], [1, 3, self._height, self._width], align_corners=False)
        chw = torch.from_numpy(view.linear).permute(2, 0, 1)[None]
        seen = functional.grid_sample(chw, grid, align_corners=False)[0].permute(1, 2, 0).numpy()
        light = (camera.undo(seen) if camera else seen) * np.float32(self._gain * exposure)
        frame = expose(light, SENSOR, Noise.draw(rng), rng)
        middle = np.array([self._width, self._height]) / 2
        corners = (view.boxes.reshape(-1, 2, 2) - centre) * scale * np.array([sign, 1.0]) + middle
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)
        kept, inside = self._inside(boxes)
        return Shot(frame, inside[kept], view.labels[kept])

    def _inside(self, boxes: Boxes) -> tuple[NDArray[np.bool_], Boxes]:
        """Which boxes are visible enough, and all of them cut to the mosaic."""
        limits = np.array([self._width, self._height] * 2, dtype=np.float32)
        cut = np.clip(boxes, 0, limits)
        share = _areas(cut) / np.maximum(_areas(boxes), 1e-6)
        visible: NDArray[np.bool_] = (share >= LEAST_VISIBLE) & (_areas(cut) > 4)
        return visible, cut


def _areas(boxes: Boxes) -> NDArray[np.float32]:
    areas: NDArray[np.float32] = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return areas
