"""Places of generated scenes: rooms, streets and parks, without anybody in them.

All images here are planar, ``[3, h, w]`` float32, and finer than the camera's by :data:`FINE`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from device_emulator.camera.scenes import backdrop
from device_emulator.camera.scenes.backdrop import GRAIN, Camera, Canvas, stretched
from device_emulator.camera.scenes.clutter import clutter
from device_emulator.camera.scenes.shapes import Image, Lighting, Patch, render

FINE: Final = 2
"""Pixels along a photosite's side."""
MAX_LIGHT: Final = 1.2
"""Light is cut here: any sensor is full before."""


class Placed(NamedTuple):
    """A thing drawn, and where it stands. ``label`` is None for clutter."""

    depth: float
    x: float
    patch: Patch
    label: int | None = None


@dataclass(frozen=True, eq=False)
class Stage:
    """A place.

    Args:
        kind: ``room``, ``street`` or ``park``.
        camera: that looks at it.
        lighting: of all that stands there.
        back: metres to the wall, or to the last place where one can stand.
        aisle: leftmost and rightmost metres, from the middle, where one can stand.
        road: from and to how many metres away cars go; None = no road.
        light: ``[3, h, w]``, the place without anything that stands in it.
        standing: clutter.
        field: ``[3, H, W]``, one a photosite: colour of the light, vignette, pools of light, and gain.
        contrast: exponent of the light.
    """

    kind: str
    camera: Camera
    lighting: Lighting
    back: float
    aisle: tuple[float, float]
    road: tuple[float, float] | None
    light: Image
    standing: tuple[Placed, ...]
    field: Image
    contrast: float

    def finish(self, light: Image) -> Image:
        """``[3, h, w]`` to ``[H, W, 3]``: averaged, in the light of the place, contiguous."""
        done = np.maximum(_shrunk(light), 0) ** np.float32(self.contrast) * self.field
        return np.ascontiguousarray(np.minimum(done, MAX_LIGHT).transpose(1, 2, 0))


def stage(rng: np.random.Generator, width: int, height: int) -> Stage:
    """Any place, as a camera of so many photosites sees it."""
    kind = str(rng.choice(["room", "street", "park"], p=[0.4, 0.4, 0.2]))
    w, h = width * FINE, height * FINE
    indoors = kind == "room"
    above = rng.uniform(1.1, 2.2) if indoors else rng.uniform(1.3, 3.6)
    back = rng.uniform(4.5, 8.5) if indoors else rng.uniform(11, 26)
    focal = h * rng.uniform(0.85, 1.35)
    # Where the ground begins must leave room for it.
    horizon = min(h * rng.uniform(0.16, 0.44), 0.75 * h - above * focal / back)
    camera = Camera(w, h, horizon, above, focal)
    lighting = _lighting(rng, indoors)
    canvas = Canvas(rng, camera, back)
    walls = slice(0, canvas.edge)
    ground = slice(canvas.edge, h)
    backdrop.ground(canvas, kind)
    road = backdrop.road(canvas) if kind == "street" else None
    canvas.grain(ground, rng.uniform(0.05, 0.2) * np.minimum(1, 7 / canvas.depth))
    facing = [
        a + lamp * max(0.0, -lighting.towards[1]) for a, lamp in zip(lighting.ambient, lighting.lamp, strict=True)
    ]
    canvas.light[:, ground] *= np.array(facing, dtype=np.float32)[:, None, None]
    if indoors or (kind == "street" and rng.random() < 0.6):
        backdrop.dapple(canvas, ground, 0.5)
    aisle = -2.0 * canvas.reach, 2.0 * canvas.reach
    if indoors:
        aisle = backdrop.room(canvas, walls, lighting)
    else:
        backdrop.sky(canvas, walls)
        (backdrop.houses if kind == "street" else backdrop.treeline)(canvas, lighting)
    standing = _standing(rng, camera, lighting, kind, back, aisle)
    contrast = rng.uniform(0.85, 1.2)
    seen = _shrunk(canvas.light) ** np.float32(contrast)
    field = _field(rng, width, height, indoors)
    # A camera's automatic exposure, and how far off it is.
    gain = 0.115 * math.exp(rng.normal(0, 0.22)) / float((seen * field).mean())
    return Stage(kind, camera, lighting, back, aisle, road, canvas.light, standing, field * np.float32(gain), contrast)


def _lighting(rng: np.random.Generator, indoors: bool) -> Lighting:  # noqa: FBT001
    azimuth, height = rng.uniform(-2.1, 2.1), math.radians(rng.uniform(40, 75) if indoors else rng.uniform(25, 65))
    towards = math.cos(height) * math.sin(azimuth), -math.sin(height), math.cos(height) * math.cos(azimuth)
    direct = rng.uniform(0.2, 0.55) if indoors else rng.choice([rng.uniform(0.05, 0.3), rng.uniform(0.5, 0.75)])
    warm = rng.normal(0, 0.06) + 0.15 * direct
    lamp = direct * (1 + warm) * 1.3, direct * 1.3, direct * (1 - warm) * 1.3
    ambient = (1 - direct) * (1 - warm / 2), 1 - direct, (1 - direct) * (1 + warm / 2)
    # Ground is seen at a slant: a metre away from the camera is a fraction of a metre up in the image.
    down = -towards[2] / -towards[1] * 0.3
    down = math.copysign(max(0.1, abs(down)), down)
    return Lighting(towards, lamp, ambient, (towards[0] / towards[1], down))


def _standing(
    rng: np.random.Generator, camera: Camera, lighting: Lighting, kind: str, back: float, aisle: tuple[float, float]
) -> tuple[Placed, ...]:
    things = []
    for _ in range(int(rng.integers(1, 7))):
        depth = math.exp(rng.uniform(math.log(3.2 if kind == "room" else 5), math.log(back - 0.2)))
        reach = camera.width / 2 / camera.scale(depth)
        x = float(np.clip(rng.uniform(-1.05, 1.05) * reach, *aisle))
        patch = render(clutter(rng, kind != "room"), camera.scale(depth), lighting, GRAIN)
        things.append(Placed(depth, camera.column(x, depth), patch))
    return tuple(things)


def _field(rng: np.random.Generator, width: int, height: int, indoors: bool) -> Image:  # noqa: FBT001
    """Colour, vignette and pools of light: ``[3, H, W]``."""
    warm = rng.normal(0.1 if indoors else 0, 0.14)
    colour = np.array([1 + warm, 1 + rng.normal(0, 0.02), 1 - 1.2 * warm], dtype=np.float32).clip(0.4, 1.7)
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    vignette = 1 - rng.uniform(0, 0.22) * (x * x + y * y)
    slope = np.exp(rng.normal(0, 0.2) * x + rng.normal(0, 0.12) * y)
    pools = np.exp(rng.uniform(0.05, 0.25) * stretched(rng.standard_normal((3, 4), dtype=np.float32), height, width))
    return colour[:, None, None] * (vignette * slope * pools).astype(np.float32)


def _shrunk(light: Image) -> Image:
    """The mean of each photosite's pixels."""
    rows = light[:, 0::2] + light[:, 1::2]
    return (rows[..., 0::2] + rows[..., 1::2]) * np.float32(0.25)
