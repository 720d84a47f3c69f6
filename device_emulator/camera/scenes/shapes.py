"""Solid shapes under a light: what generated figures and clutter are made of.

Lengths are metres, ``x`` to the right and ``y`` down, from the point at which a thing stands on the ground. Images are
planar, ``[3, h, w]`` float32, and *premultiplied*: light times coverage. Every shape is drawn in its own bounding
rectangle by signed distance, and bends light as the solid would whose outline it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.floating[Any]]
"""float32: ``[3, h, w]`` light, or ``[h, w]`` of anything else that has one number a pixel."""
Point = tuple[float, float]
Colour = tuple[float, float, float]
"""Share of red, green and blue light that comes back: linear, 0 to 1."""

GRAIN_SIDE: Final = 256


def paint(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
    """A colour of any hue; saturation and value as in HSV, evenly from a range, of display values."""
    hue, s, v = rng.random(), rng.uniform(*saturation), rng.uniform(*value)
    red, green, blue = (
        (v * (1 - s * (1 - min(1.0, max(0.0, abs((hue * 6 + k) % 6 - 3) - 1))))) ** 2.2 for k in (0, 4, 2)
    )
    return red, green, blue


def muted(rng: np.random.Generator, low: float, high: float) -> Colour:
    """A colour as walls and floors have it: mostly warm and pale, seldom of any hue."""
    if rng.random() < 0.65:
        red, green, blue = paint(rng, (0.0, 0.0), (low, high))
        warm = rng.uniform(0.0, 0.5)
        return red, green * (1 - 0.55 * warm), blue * (1 - warm)
    return paint(rng, (0.0, 0.35), (low, high))


def tone(colour: Colour, factor: float) -> Colour:
    """The same colour, darker or lighter."""
    red, green, blue = (min(1.0, share * factor) for share in colour)
    return red, green, blue


def quad(left: float, top: float, right: float, bottom: float) -> tuple[Point, ...]:
    """The corners of an upright rectangle."""
    return (left, top), (right, top), (right, bottom), (left, bottom)


@dataclass(frozen=True)
class Lighting:
    """One distant lamp or sun, and light from all around.

    Args:
        towards: unit vector to the lamp: right, down, to the camera.
        lamp: its red, green and blue on a surface that faces it.
        ambient: red, green and blue from all around.
        shadow: where the shadow of a point falls, in metres right and down per metre above the ground.
    """

    towards: tuple[float, float, float]
    lamp: Colour
    ambient: Colour
    shadow: Point

    @property
    def shade(self) -> Colour:
        """What is left in the lamp's shadow of the light that falls on the ground."""
        direct = max(0.0, -self.towards[1])
        red, green, blue = (a / (a + direct * lamp) for a, lamp in zip(self.ambient, self.lamp, strict=True))
        return red, green, blue


class _Cover(NamedTuple):
    """How much of each pixel a shape covers, and where its surface faces there: right and down."""

    share: Image
    right: Image
    down: Image


@dataclass(frozen=True)
class Capsule:
    """A limb: a ball of radius ``thick`` at ``a`` that moves to ``b`` and becomes one of radius ``thin``."""

    a: Point
    b: Point
    thick: float
    thin: float
    colour: Colour

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        r = max(self.thick, self.thin)
        (ax, ay), (bx, by) = self.a, self.b
        return min(ax, bx) - r, min(ay, by) - r, max(ax, bx) + r, max(ay, by) + r

    def cover(self, x: Image, y: Image, px_per_m: float) -> _Cover:
        """At ``x`` ``[w]`` and ``y`` ``[h, 1]``."""
        dx, dy = self.b[0] - self.a[0], self.b[1] - self.a[1]
        px, py = x - self.a[0], y - self.a[1]
        along = np.clip((px * dx + py * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
        qx, qy = px - along * dx, py - along * dy
        radius = self.thick + along * (self.thin - self.thick)
        share = np.clip((radius - np.sqrt(qx * qx + qy * qy)) * px_per_m + 0.5, 0, 1)
        # A line thinner than a pixel covers none of them wholly: keep its area.
        half = np.minimum(0.5, radius * px_per_m)
        share *= 2 * half / np.square(half + 0.5)
        return _Cover(share, qx / radius, qy / radius)


@dataclass(frozen=True)
class Ellipse:
    """A ball or an egg. ``rough``: by how much grain eats into its outline and its surface, as foliage; 0 = smooth."""

    at: Point
    rx: float
    ry: float
    colour: Colour
    rough: float = 0.0

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        rx, ry = self.rx * (1 + self.rough), self.ry * (1 + self.rough)
        return self.at[0] - rx, self.at[1] - ry, self.at[0] + rx, self.at[1] + ry

    def cover(self, x: Image, y: Image, px_per_m: float) -> _Cover:
        """At ``x`` ``[w]`` and ``y`` ``[h, 1]``."""
        u, v = (x - self.at[0]) / self.rx, (y - self.at[1]) / self.ry
        reach = np.sqrt(u * u + v * v)
        if not self.rough:
            # To first order, the distance from the outline is this times the distance in units of the axes.
            slope = np.sqrt(np.square(u / self.rx) + np.square(v / self.ry))
            unit = np.maximum(reach / np.maximum(slope, 1e-6), min(self.rx, self.ry))
            return _Cover(np.clip((1 - reach) * unit * px_per_m + 0.5, 0, 1), u, v)
        shift = round(abs(self.at[0] * 977)), round(abs(self.at[1] * 977))
        bumps = self.rough * grain_at(reach.shape, shift)
        leaves = grain_at(reach.shape, (shift[0] + 90, shift[1] + 170))
        share = np.clip((1 - reach + bumps) * min(self.rx, self.ry) * px_per_m + 0.5, 0, 1)
        return _Cover(share, u * 0.6 + 0.5 * leaves, v * 0.6 + 0.5 * bumps / self.rough)


@dataclass(frozen=True)
class Polygon:
    """A convex face, corners clockwise as seen.

    Args:
        corners: three or more.
        colour: of the face.
        round: radius of its corners.
        right: how much it faces right, -1 to 1.
        down: how much it faces down, -1 to 1.
        bulge: how much more it faces outward at its left and right edge, and ``crown`` at its top and bottom.
        crown: see ``bulge``.
    """

    corners: tuple[Point, ...]
    colour: Colour
    round: float = 0.0
    right: float = 0.0
    down: float = 0.0
    bulge: float = 0.0
    crown: float = 0.0

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        xs, ys = zip(*self.corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def cover(self, x: Image, y: Image, px_per_m: float) -> _Cover:
        """At ``x`` ``[w]`` and ``y`` ``[h, 1]``."""
        sides: list[Image] = []
        for (ax, ay), (bx, by) in zip(self.corners, (*self.corners[1:], self.corners[0]), strict=True):
            length = math.hypot(bx - ax, by - ay)
            if length > 0:
                nx, ny = (by - ay) / length, (ax - bx) / length
                sides.append(nx * (x - ax) + (ny * (y - ay) + np.float32(self.round)))
        if self.round:
            outside = sum(np.square(np.maximum(side, 0)) for side in sides)
            distance = np.sqrt(outside) - self.round
        else:
            distance = np.maximum.reduce(sides)
        left, top, right, bottom = self.bounds
        u = (2 * x - left - right) / max(right - left, 1e-6)
        v = (2 * y - top - bottom) / max(bottom - top, 1e-6)
        share = np.clip(0.5 - distance * px_per_m, 0, 1)
        return _Cover(share, self.right + self.bulge * u, self.down + self.crown * v)


Shape = Capsule | Ellipse | Polygon


@dataclass(frozen=True, eq=False)
class Patch:
    """A thing drawn.

    Args:
        light: ``[3, h, w]``, premultiplied.
        cover: ``[h, w]``, 0 to 1.
        left: pixels from the point where it stands to the left edge.
        top: and to the top edge; both are negative as a rule.
    """

    light: Image
    cover: Image
    left: int
    top: int


def render(shapes: Sequence[Shape], px_per_m: float, lighting: Lighting, grain: float = 0.0) -> Patch:
    """Draw shapes over one another, the first at the back.

    Args:
        shapes: at least one.
        px_per_m: size.
        lighting: where light comes from.
        grain: how uneven all surfaces are: relative, one standard deviation.
    """
    bounds = np.array([shape.bounds for shape in shapes])
    left, top = (math.floor(v * px_per_m) - 1 for v in bounds[:, :2].min(axis=0))
    right, bottom = (math.ceil(v * px_per_m) + 1 for v in bounds[:, 2:].max(axis=0))
    light = np.zeros((3, bottom - top, right - left), dtype=np.float32)
    cover = np.zeros(light.shape[1:], dtype=np.float32)
    xs = ((np.arange(left, right) + 0.5) / px_per_m).astype(np.float32)
    ys = ((np.arange(top, bottom) + 0.5) / px_per_m).astype(np.float32)[:, None]
    for shape, (x0, y0, x1, y1) in zip(shapes, bounds, strict=True):
        rows = slice(math.floor(y0 * px_per_m) - 1 - top, math.ceil(y1 * px_per_m) + 1 - top)
        columns = slice(math.floor(x0 * px_per_m) - 1 - left, math.ceil(x1 * px_per_m) + 1 - left)
        share, right_, down = shape.cover(xs[columns], ys[rows], px_per_m)
        lit = _lit(right_, down, lighting)
        keep = 1 - share
        for plane, colour, ambient, lamp in zip(light, shape.colour, lighting.ambient, lighting.lamp, strict=True):
            plane[rows, columns] *= keep
            plane[rows, columns] += share * (colour * ambient + colour * lamp * lit)
        cover[rows, columns] *= keep
        cover[rows, columns] += share
    if grain:
        light *= np.maximum(0, 1 + grain * grain_at(cover.shape, (top, left)))
    return Patch(light, cover, left, top)


def _lit(right: Image, down: Image, lighting: Lighting) -> Image:
    """Cosine between a surface and the lamp, 0 where it faces away."""
    out = np.sqrt(np.maximum(0, 1 - right * right - down * down))
    x, y, z = lighting.towards
    return np.maximum(0, right * x + down * y + out * z)


@cache
def grain_tile() -> Image:
    """``[256, 256]`` noise at all scales that repeats without a seam: mean 0, variance 1. The same for all scenes."""
    spectrum = np.fft.rfft2(np.random.default_rng(0).standard_normal((GRAIN_SIDE, GRAIN_SIDE)))
    fy, fx = np.fft.fftfreq(GRAIN_SIDE)[:, None], np.fft.rfftfreq(GRAIN_SIDE)
    reach = np.hypot(fy, fx)
    # Amplitude falls by 1 / frequency, as in photographs; nothing is wider than a fifth of the tile.
    noise = np.fft.irfft2(spectrum / np.maximum(reach, 5 / GRAIN_SIDE), s=(GRAIN_SIDE, GRAIN_SIDE))
    tile = ((noise - noise.mean()) / noise.std()).astype(np.float32)
    tile.setflags(write=False)
    return tile


def grain_at(shape: tuple[int, ...], start: tuple[int, int]) -> Image:
    """Grain for ``shape`` pixels, from a row and a column of the tile on. The same place always has the same grain."""
    rows, columns = (np.arange(first, first + n) % GRAIN_SIDE for first, n in zip(start, shape, strict=True))
    return grain_tile()[np.ix_(rows, columns)]
