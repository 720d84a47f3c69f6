"""Grounds, walls, houses and trees of generated places, painted behind all that stands there.

Images are planar, ``[3, h, w]``. Metres are measured on the wall at the back, or on the ground.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from device_emulator.camera.scenes.clutter import hung
from device_emulator.camera.scenes.shapes import (
    Capsule,
    Colour,
    Ellipse,
    Image,
    Lighting,
    Patch,
    Polygon,
    Shape,
    grain_at,
    muted,
    paint,
    quad,
    render,
    tone,
)

GRAIN: Final = 0.06
"""How uneven surfaces are: relative, one standard deviation."""


@dataclass(frozen=True)
class Camera:
    """A pinhole that looks along level ground.

    Args:
        width: pixels.
        height: pixels.
        horizon: its row.
        above: metres from the ground to the camera.
        focal: pixels.
    """

    width: int
    height: int
    horizon: float
    above: float
    focal: float

    def scale(self, depth: float) -> float:
        """Pixels a metre, so many metres away."""
        return self.focal / depth

    def row(self, depth: float) -> float:
        """Where the ground is that is so far away."""
        return self.horizon + self.above * self.focal / depth

    def column(self, x: float, depth: float) -> float:
        """Where a point is, ``x`` metres right of the middle."""
        return self.width / 2 + x * self.focal / depth


class Canvas:
    """What a place is painted on: share of light that comes back, then light."""

    def __init__(self, rng: np.random.Generator, camera: Camera, back: float) -> None:
        self.rng, self.camera, self.back = rng, camera, back
        self.light = np.zeros((3, camera.height, camera.width), dtype=np.float32)
        self.edge = min(camera.height, max(0, round(camera.row(back))))
        columns = np.arange(camera.width, dtype=np.float32) + 0.5 - camera.width / 2
        self.rows = np.arange(camera.height, dtype=np.float32)[:, None] + 0.5
        self.wall_x = columns / camera.scale(back)
        self.wall_y = (camera.row(back) - self.rows[: self.edge]) / camera.scale(back)
        self.depth = camera.above * camera.focal / (self.rows[self.edge :] - camera.horizon)
        self.ground_x = columns * self.depth / camera.focal

    def fill(self, rows: slice, colour: Colour, other: Colour | None = None, share: Image | float = 0.0) -> None:
        """Paint rows with a mixture of two colours."""
        for plane, first, second in zip(self.light, colour, other or colour, strict=True):
            plane[rows] = first + (second - first) * share

    def grain(self, rows: slice, strength: Image | float) -> None:
        """Make rows uneven, finely and coarsely."""
        shape = self.light[0, rows].shape
        start = int(self.rng.integers(256)), int(self.rng.integers(256))
        coarse = stretched(self.rng.standard_normal((9, 12), dtype=np.float32), *shape)
        self.light[:, rows] *= np.maximum(0.2, 1 + strength * (grain_at(shape, start) + 0.8 * coarse))

    def stand(self, shapes: list[Shape], x: float, lighting: Lighting) -> None:
        """Draw shapes against the back, ``x`` metres from the middle."""
        patch = render(shapes, self.camera.scale(self.back), lighting, GRAIN)
        paste(self.light, patch, self.camera.column(x, self.back), self.camera.row(self.back))

    @property
    def reach(self) -> float:
        """Metres from the middle to the left and right end of the back."""
        return self.camera.width / 2 / self.camera.scale(self.back)


def paste(light: Image, patch: Patch, x: float, y: float) -> tuple[slice, slice, slice, slice]:
    """Lay a patch that stands at a column and a row over a picture: ``light`` is changed.

    Returns:
        Rows and columns of the picture, then of the patch, that coincide.
    """
    height, width = patch.cover.shape
    top, left = round(y) + patch.top, round(x) + patch.left
    rows = slice(min(max(top, 0), light.shape[1]), max(0, min(top + height, light.shape[1])))
    columns = slice(min(max(left, 0), light.shape[2]), max(0, min(left + width, light.shape[2])))
    rows, columns = (
        slice(rows.start, max(rows.start, rows.stop)),
        slice(columns.start, max(columns.start, columns.stop)),
    )
    own_rows, own_columns = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
    light[:, rows, columns] *= 1 - patch.cover[own_rows, own_columns]
    light[:, rows, columns] += patch.light[:, own_rows, own_columns]
    return rows, columns, own_rows, own_columns


def ground(canvas: Canvas, kind: str) -> None:
    """Grass, flags or boards, and a path in a park."""
    rng, rows = canvas.rng, slice(canvas.edge, canvas.camera.height)
    if kind == "park":
        base, pattern = (rng.uniform(0.05, 0.12), rng.uniform(0.1, 0.2), rng.uniform(0.02, 0.05)), "plain"
    elif kind == "street":
        base = paint(rng, (0.0, 0.12), (0.45, 0.75))
        pattern = str(rng.choice(["plain", "slabs", "checks"], p=[0.4, 0.5, 0.1]))
    else:
        base = muted(rng, 0.3, 0.8) if rng.random() < 0.5 else tone((0.3, 0.19, 0.1), rng.uniform(0.5, 1.6))
        pattern = str(rng.choice(["plain", "slabs", "checks", "planks"], p=[0.25, 0.25, 0.15, 0.35]))
    x, depth = canvas.ground_x + 50, canvas.depth
    size = rng.uniform(0.3, 0.8)
    px_per_m = canvas.camera.focal / depth
    if pattern == "plain":
        canvas.fill(rows, base)
    elif pattern == "checks":
        odd = (np.floor(x / size) + np.floor(depth / size)) % 2
        canvas.fill(rows, base, tone(base, rng.uniform(0.35, 0.8)), odd * np.minimum(1, px_per_m * size / 12))
    else:
        wide = size * (0.35 if pattern == "planks" else 1.0)
        line = np.clip((0.008 - np.abs(x % wide - wide / 2)) * px_per_m + 0.5, 0, 1)
        if pattern == "slabs":
            slope = px_per_m * canvas.camera.above / depth
            line = np.maximum(line, np.clip((0.01 - np.abs(depth % size - size / 2)) * slope + 0.5, 0, 1))
        line *= np.minimum(1, px_per_m * wide / 8)
        canvas.fill(rows, base, tone(base, rng.uniform(0.25, 0.7)), line)
        if pattern == "planks":
            shades = rng.normal(1, 0.12, 512).astype(np.float32)
            canvas.light[:, rows] *= shades[((x + wide / 2) / wide).astype(np.int64) % 512]
    if kind == "park" and rng.random() < 0.7:
        path = np.clip(
            (rng.uniform(0.8, 2.0) - np.abs(canvas.ground_x - rng.normal(0, 0.4) * (depth - 4))) * px_per_m * 0.2, 0, 1
        )
        for plane, share in zip(canvas.light, tone((0.3, 0.26, 0.2), rng.uniform(0.6, 1.4)), strict=True):
            plane[rows] += (share - plane[rows]) * path


def road(canvas: Canvas) -> tuple[float, float]:
    """A road across the view, kerbs and a dashed line."""
    rng, depth = canvas.rng, canvas.depth[:, 0]
    near = rng.uniform(4.0, 7.0)
    far = min(near + rng.uniform(4.5, 8.0), canvas.back - 2.5)
    tar = tone((0.06, 0.06, 0.063), rng.uniform(0.7, 2.2))
    kerb = rng.uniform(0.25, 0.5)
    for low, high, share in ((near - 0.2, far + 0.25, (kerb,) * 3), (near, far, tar)):
        rows = canvas.edge + np.flatnonzero((depth > low) & (depth < high))
        canvas.light[:, rows] = np.array(share, dtype=np.float32)[:, None, None]
    if rng.random() < 0.7:
        middle = (near + far) / 2
        dash = (np.abs(canvas.depth - middle) < 0.07) & ((canvas.ground_x + 50) % 3 < rng.uniform(1.0, 3.0))
        canvas.light[:, canvas.edge :][:, dash] = 0.6
    return near, far


def dapple(canvas: Canvas, rows: slice, strongest: float) -> None:
    """Soft shadows of what is out of view, which take away up to ``strongest`` of the light."""
    rng = canvas.rng
    shape = canvas.light[0, rows].shape
    blobs = stretched(
        rng.standard_normal((int(rng.integers(3, 10)), int(rng.integers(3, 10))), dtype=np.float32), *shape
    )
    shadow = np.clip((blobs - rng.uniform(-0.2, 0.8)) * rng.uniform(0.7, 4), 0, 1)
    canvas.light[:, rows] *= 1 - rng.uniform(0.1, strongest) * shadow


def sky(canvas: Canvas, rows: slice) -> None:
    """Paler towards the horizon, with clouds."""
    rng = canvas.rng
    height = canvas.light[0, rows].shape[0]
    blue = rng.uniform(0.0, 0.6)
    bright = rng.uniform(0.6, 1.1)
    top = bright * (1 - 0.75 * blue), bright * (1 - 0.45 * blue), bright
    fade = np.linspace(0, 1, max(height, 1), dtype=np.float32)[:, None]
    clouds = np.clip(stretched(rng.standard_normal((5, 7), dtype=np.float32), *canvas.light[0, rows].shape) * 0.5, 0, 1)
    canvas.fill(rows, top, (bright,) * 3, np.maximum(fade * 0.7, clouds * rng.uniform(0, 1)))


def houses(canvas: Canvas, lighting: Lighting) -> None:
    """A row of houses along the back, with gaps."""
    rng = canvas.rng
    x = -canvas.reach - rng.uniform(0, 5)
    while x < canvas.reach:
        wide, high = rng.uniform(4, 11), rng.uniform(3.2, 14)
        if rng.random() < 0.88:
            canvas.stand(_house(rng, wide, high), x + wide / 2, lighting)
        else:
            canvas.stand([Ellipse((0, -1.5), wide * 0.5, 2.0, (0.05, 0.1, 0.03), 0.2)], x + wide / 2, lighting)
        x += wide


def _house(rng: np.random.Generator, wide: float, high: float) -> list[Shape]:
    front = muted(rng, 0.35, 0.9)
    half = wide / 2
    trim, glass = tone(front, rng.uniform(0.4, 1.7)), tone((0.12, 0.14, 0.17), rng.uniform(0.3, 2.5))
    shapes: list[Shape] = [Polygon(quad(-half, -high, half, 0), front)]
    if rng.random() < 0.4:
        shapes += [
            Capsule((-half, -z), (half, -z), 0.015, 0.015, tone(front, 0.6)) for z in np.arange(0.4, min(high, 6), 0.4)
        ]
    pitch, sill = rng.uniform(1.5, 2.8), rng.uniform(0.5, 1.1)
    pane, tall = pitch * rng.uniform(0.3, 0.7), rng.uniform(1.0, 1.8)
    for floor in np.arange(sill, min(high - tall, 8), 2.9):
        for x in np.arange(-half + pitch / 2, half - pane / 2, pitch):
            shapes.append(
                Polygon(quad(x - pane / 2 - 0.08, -floor - tall - 0.08, x + pane / 2 + 0.08, -floor + 0.08), trim)
            )
            shapes.append(Polygon(quad(x - pane / 2, -floor - tall, x + pane / 2, -floor), glass, down=-0.3))
    if rng.random() < 0.7:
        x = rng.uniform(-half + 0.8, half - 0.8)
        shapes.append(Polygon(quad(x - 0.55, -2.2, x + 0.55, 0), paint(rng, (0.2, 0.9), (0.15, 0.7))))
    shapes.append(Polygon(quad(-half, -high - 0.1, half, -high + 0.25), trim, down=-0.3))
    return shapes


def treeline(canvas: Canvas, lighting: Lighting) -> None:
    """Trees along the back, and perhaps a fence."""
    rng = canvas.rng
    green = rng.uniform(0.04, 0.1), rng.uniform(0.08, 0.16), rng.uniform(0.02, 0.06)
    for x in rng.uniform(-canvas.reach, canvas.reach, int(rng.integers(8, 20))):
        high = rng.uniform(0.8, 4)
        crown = Ellipse((0, -high), rng.uniform(1.5, 3.5), high, tone(green, rng.uniform(0.5, 1.5)), 0.15)
        canvas.stand([crown], float(x), lighting)
    if rng.random() < 0.4:
        posts = np.arange(-canvas.reach, canvas.reach, rng.uniform(0.5, 2.0))
        wood = tone((0.3, 0.22, 0.14), rng.uniform(0.3, 1.8))
        fence: list[Shape] = [Capsule((float(x), 0), (float(x), -1.0), 0.05, 0.05, wood) for x in posts]
        canvas.stand(
            [*fence, *(Capsule((-canvas.reach, -z), (canvas.reach, -z), 0.04, 0.04, wood) for z in (0.4, 0.85))],
            0,
            lighting,
        )


def room(canvas: Canvas, rows: slice, lighting: Lighting) -> tuple[float, float]:
    """Walls, a corner and what hangs there. Returns between which metres one can stand."""
    rng, camera = canvas.rng, canvas.camera
    colour, pattern = (
        muted(rng, 0.45, 0.93),
        str(rng.choice(["plain", "stripes", "bricks", "panel"], p=[0.4, 0.2, 0.2, 0.2])),
    )
    other = tone(colour, rng.uniform(0.45, 0.85))
    x, y = canvas.wall_x + 50, canvas.wall_y
    if pattern == "stripes":
        canvas.fill(
            rows,
            colour,
            other,
            ((x % (size := rng.uniform(0.2, 0.9)) < size * rng.uniform(0.2, 0.6)) + 0 * y).astype(np.float32),
        )
    elif pattern == "bricks":
        tall, wide = 0.15, 0.45
        layer = np.floor(y / tall)
        joint = ((y % tall) < 0.025) | ((x + layer % 2 * wide / 2) % wide < 0.025)
        canvas.fill(rows, other, tone(colour, 1.1), joint.astype(np.float32))
    elif pattern == "panel":
        canvas.fill(rows, colour, other, (y < rng.uniform(0.7, 1.3)).astype(np.float32))
    else:
        canvas.fill(rows, colour)
    canvas.fill(
        slice(max(0, round(canvas.edge - 0.1 * camera.scale(canvas.back))), canvas.edge),
        tone(colour, rng.uniform(0.3, 1.5)),
    )
    canvas.grain(rows, rng.uniform(0.02, 0.1))
    glow = [a + lamp * max(0.0, lighting.towards[2]) for a, lamp in zip(lighting.ambient, lighting.lamp, strict=True)]
    canvas.light[:, rows] *= np.array(glow, dtype=np.float32)[:, None, None]
    dapple(canvas, rows, 0.3)
    for at in rng.permutation(np.linspace(-0.8, 0.8, 5))[: rng.integers(1, 5)]:
        canvas.stand(hung(rng), float(at) * canvas.reach, lighting)
    left, right = -2.0 * canvas.reach, 2.0 * canvas.reach
    if rng.random() < 0.55:
        side = 1 if rng.random() < 0.5 else -1
        corner = side * rng.uniform(0.5, 0.95) * canvas.reach
        _side_wall(canvas, corner, tone(colour, rng.uniform(0.5, 1.1)))
        left, right = (left, corner - 0.4) if side > 0 else (corner + 0.4, right)
    return left, right


def _side_wall(canvas: Canvas, corner: float, share: Colour) -> None:
    """The wall that runs from the back to the camera, ``corner`` metres from the middle."""
    camera = canvas.camera
    columns = np.arange(camera.width, dtype=np.float32) + 0.5 - camera.width / 2
    start = corner * camera.scale(canvas.back)
    beyond = columns / start
    floor = camera.horizon + (camera.row(canvas.back) - camera.horizon) * beyond
    wall = (beyond > 1) & (canvas.rows < floor)
    shade = (0.75 + 0.35 * np.minimum(beyond - 1, 1)) * (1 - 0.5 * (np.abs(canvas.rows - floor) < 3))
    for plane, part in zip(canvas.light, share, strict=True):
        plane[wall] = (part * shade)[wall]


def stretched(grid: Image, height: int, width: int) -> Image:
    """``[a, b]`` to ``[height, width]``, linear between the grid's points."""
    down, across = _weights(height, grid.shape[0]), _weights(width, grid.shape[1])
    return down @ grid @ across.T


def _weights(count: int, points: int) -> NDArray[np.float32]:
    at = np.linspace(0, points - 1, count, dtype=np.float32)[:, None]
    return np.maximum(0, 1 - np.abs(at - np.arange(points, dtype=np.float32)))
