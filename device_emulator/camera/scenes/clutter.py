"""Clutter of generated scenes: what is no figure, though some of it looks a little like one.

Things are lists of solid shapes (:mod:`device_emulator.camera.scenes.shapes`), in metres, that stand at (0, 0).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from device_emulator.camera.scenes.shapes import Capsule, Colour, Ellipse, Polygon, Shape, muted, paint, quad, tone

_BLACK: Final = (0.012, 0.012, 0.013)
_METAL: Final = (0.35, 0.35, 0.36)


def clutter(rng: np.random.Generator, outdoors: bool) -> list[Shape]:  # noqa: FBT001
    """Something that is no figure, though it may look a little like one."""
    kinds = (
        ("pole", "sign", "bollard", "bin", "bush", "tree", "cone", "bench")
        if outdoors
        else ("lamp", "plant", "chair", "table", "bin", "shelf", "rack")
    )
    return _CLUTTER[str(rng.choice(kinds))](rng)


def hung(rng: np.random.Generator) -> list[Shape]:
    """A window, a door, a picture or a curtain, on a wall whose foot is at 0."""
    half, kind = rng.uniform(0.3, 0.8), rng.random()
    frame = paint(rng, (0.0, 0.6), (0.2, 0.95)) if rng.random() < 0.4 else muted(rng, 0.3, 0.95)
    if kind < 0.3:
        bright = rng.uniform(0.5, 2.5)
        window: list[Shape] = [
            Polygon(quad(-half - 0.07, -2.2, half + 0.07, -0.9), frame),
            Polygon(quad(-half, -2.13, half, -0.97), (bright * 0.8, bright * 0.9, bright)),
        ]
        return [
            *window,
            Capsule((0, -2.13), (0, -0.97), 0.03, 0.03, frame),
            Capsule((-half, -1.55), (half, -1.55), 0.025, 0.025, frame),
        ]
    if kind < 0.5:
        return [
            Polygon(quad(-0.52, -2.1, 0.52, 0), frame),
            Polygon(quad(-0.44, -2.03, 0.44, 0), tone(frame, 0.7)),
            Ellipse((0.34, -1.0), 0.04, 0.04, (0.5, 0.45, 0.3)),
        ]
    if kind < 0.8:
        low = rng.uniform(1.1, 1.5)
        high = low + rng.uniform(0.3, 0.8)
        art: list[Shape] = [
            Polygon(quad(-half, -high, half, -low), frame),
            Polygon(quad(-half + 0.05, -high + 0.05, half - 0.05, -low - 0.05), paint(rng, (0, 0.6), (0.3, 0.9))),
        ]
        for _ in range(int(rng.integers(1, 5))):
            size = rng.uniform(0.04, 0.14)
            at = rng.uniform(-half + 0.2, half - 0.2) if half > 0.2 else 0.0, -rng.uniform(low + 0.2, high - 0.1)
            art.append(Ellipse(at, size, size * rng.uniform(0.4, 1), paint(rng, (0.1, 0.9), (0.1, 0.9))))
        return art
    folds = np.arange(-half, half, 0.12)
    return [Polygon(quad(x, -2.3, x + 0.14, -0.1), frame, bulge=0.7) for x in folds]


def _pole(rng: np.random.Generator) -> list[Shape]:
    grey, high = paint(rng, (0.0, 0.2), (0.1, 0.7)), rng.uniform(2.5, 5.0)
    reach = rng.uniform(-1, 1)
    return [
        Capsule((0, -0.02), (0, -high), 0.07, 0.05, grey),
        Capsule((0, -high), (reach, -high - 0.2), 0.04, 0.03, grey),
        Capsule((reach, -high - 0.2), (reach * 1.4, -high - 0.2), 0.07, 0.05, (0.7, 0.7, 0.6)),
    ]


def _sign(rng: np.random.Generator) -> list[Shape]:
    high, face = rng.uniform(1.5, 2.4), paint(rng, (0.6, 1.0), (0.4, 0.9))
    pole = Capsule((0, 0), (0, -high), 0.03, 0.03, (0.3, 0.3, 0.3))
    if rng.random() < 0.5:
        return [pole, Ellipse((0, -high), 0.3, 0.3, face), Ellipse((0, -high), 0.21, 0.21, (0.75, 0.75, 0.75))]
    wide = rng.uniform(0.2, 0.5)
    return [pole, Polygon(quad(-wide, -high - 0.4, wide, -high), face, 0.05)]


def _bollard(rng: np.random.Generator) -> list[Shape]:
    high, thick = rng.uniform(0.6, 1.1), rng.uniform(0.07, 0.14)
    colour = paint(rng, (0.0, 0.9), (0.15, 0.8))
    return [
        Polygon(quad(-thick, -high, thick, 0), colour, thick * 0.6, bulge=0.8),
        Polygon(quad(-thick, -high * 0.85, thick, -high * 0.7), (0.7, 0.7, 0.7), bulge=0.8),
    ]


def _bin(rng: np.random.Generator) -> list[Shape]:
    high, half = rng.uniform(0.6, 1.15), rng.uniform(0.2, 0.34)
    colour = paint(rng, (0.1, 0.9), (0.1, 0.55))
    can = (-half, -high), (half, -high), (half * 0.85, 0.0), (-half * 0.85, 0.0)
    return [
        Polygon(can, colour, 0.04, bulge=0.8),
        Ellipse((0, -high), half * 1.05, half * 0.3, tone(colour, 1.4)),
        Capsule((-half * 0.9, -high * 0.75), (half * 0.9, -high * 0.75), 0.015, 0.015, tone(colour, 0.4)),
    ]


def _bush(rng: np.random.Generator) -> list[Shape]:
    green = _leaf(rng)
    return [
        Ellipse(
            (float(x), -rng.uniform(0.3, 0.6)),
            rng.uniform(0.35, 0.6),
            rng.uniform(0.3, 0.55),
            tone(green, rng.uniform(0.7, 1.3)),
            0.22,
        )
        for x in rng.uniform(-0.8, 0.8, int(rng.integers(2, 6)))
    ]


def _leaf(rng: np.random.Generator) -> Colour:
    return rng.uniform(0.04, 0.12), rng.uniform(0.09, 0.2), rng.uniform(0.015, 0.06)


def _tree(rng: np.random.Generator) -> list[Shape]:
    high, green = rng.uniform(1.6, 2.6), _leaf(rng)
    thick = rng.uniform(0.1, 0.24)
    lean = rng.normal(0, 0.15)
    shapes: list[Shape] = [Capsule((0, 0), (lean, -high - 0.8), thick, thick * 0.6, (0.09, 0.06, 0.04))]
    for _ in range(int(rng.integers(4, 8))):
        at = lean + rng.normal(0, 0.8), -high - rng.uniform(0.2, 2.0)
        shapes.append(
            Ellipse(at, rng.uniform(0.6, 1.1), rng.uniform(0.5, 0.9), tone(green, rng.uniform(0.6, 1.4)), 0.25)
        )
    return shapes


def _cone(_rng: np.random.Generator) -> list[Shape]:
    orange = (0.75, 0.13, 0.02)
    return [
        Polygon(quad(-0.22, -0.05, 0.22, 0), orange),
        Polygon(((-0.03, -0.65), (0.03, -0.65), (0.16, -0.04), (-0.16, -0.04)), orange, bulge=0.8),
        Polygon(((-0.06, -0.48), (0.06, -0.48), (0.1, -0.3), (-0.1, -0.3)), (0.8, 0.8, 0.8), bulge=0.8),
    ]


def _bench(rng: np.random.Generator) -> list[Shape]:
    wood = tone((0.25, 0.14, 0.07), rng.uniform(0.5, 1.5))
    half = rng.uniform(0.6, 0.95)
    slats: list[Shape] = [Capsule((-half, -z), (half, -z), 0.05, 0.05, wood) for z in (0.45, 0.66, 0.8)]
    return [Capsule((x, -0.8), (x, 0), 0.03, 0.03, _BLACK) for x in (-half * 0.85, half * 0.85)] + slats


def _lamp(rng: np.random.Generator) -> list[Shape]:
    high, half = rng.uniform(1.3, 1.8), rng.uniform(0.14, 0.26)
    shade = (-half * 0.7, -high - 0.3), (half * 0.7, -high - 0.3), (half, -high), (-half, -high)
    return [
        Ellipse((0, -0.02), 0.16, 0.04, _METAL),
        Capsule((0, 0), (0, -high), 0.018, 0.018, _METAL),
        Polygon(shade, paint(rng, (0.0, 0.5), (0.6, 1.0)), bulge=0.7),
    ]


def _plant(rng: np.random.Generator) -> list[Shape]:
    green, pot = _leaf(rng), paint(rng, (0.1, 0.7), (0.3, 0.8))
    leaves: list[Shape] = []
    for angle in rng.uniform(-1.1, 1.1, int(rng.integers(6, 14))):
        long = rng.uniform(0.4, 0.9)
        leaves.append(
            Capsule(
                (0, -0.4),
                (float(long * math.sin(angle)), float(-0.4 - long * math.cos(angle))),
                0.015,
                0.05,
                tone(green, rng.uniform(0.6, 1.6)),
            )
        )
    return [*leaves, Polygon(((-0.2, -0.42), (0.2, -0.42), (0.15, 0.0), (-0.15, 0.0)), pot, 0.02, bulge=0.8)]


def _chair(rng: np.random.Generator) -> list[Shape]:
    wood, seat = tone((0.28, 0.17, 0.09), rng.uniform(0.3, 1.6)), paint(rng, (0.1, 0.8), (0.2, 0.8))
    legs: list[Shape] = [Capsule((x, 0), (x * 0.9, -0.45), 0.02, 0.02, wood) for x in (-0.22, -0.12, 0.16, 0.24)]
    return [
        *legs,
        Polygon(quad(-0.24, -0.95, 0.2, -0.6), seat, 0.05),
        Polygon(quad(-0.25, -0.5, 0.26, -0.42), seat, 0.02, down=-0.6),
    ]


def _table(rng: np.random.Generator) -> list[Shape]:
    wood, half = tone((0.3, 0.18, 0.1), rng.uniform(0.3, 1.8)), rng.uniform(0.5, 0.9)
    legs: list[Shape] = [
        Capsule((x, 0), (x, -0.72), 0.028, 0.028, tone(wood, 0.7))
        for x in (-half * 0.9, -half * 0.7, half * 0.72, half * 0.9)
    ]
    top = (-half * 0.85, -0.84), (half * 0.85, -0.84), (half, -0.72), (-half, -0.72)
    return [*legs, Polygon(top, wood, down=-0.8), Polygon(quad(-half, -0.73, half, -0.68), tone(wood, 0.7))]


def _shelf(rng: np.random.Generator) -> list[Shape]:
    wood, half, high = tone((0.3, 0.19, 0.1), rng.uniform(0.3, 2.0)), rng.uniform(0.4, 0.7), rng.uniform(1.2, 2.1)
    shapes: list[Shape] = [Polygon(quad(-half, -high, half, 0), wood)]
    rows = int(rng.integers(3, 6))
    for k in range(rows):
        low, top = -high * k / rows - 0.04, -high * (k + 1) / rows + 0.03
        shapes.append(Polygon(quad(-half + 0.04, top, half - 0.04, low), tone(wood, 0.3)))
        x = -half + 0.05
        while x < half - 0.14 and rng.random() < 0.93:
            thick = rng.uniform(0.025, 0.08)
            shapes.append(
                Polygon(
                    quad(x, low + (top - low) * rng.uniform(0.6, 0.95), x + thick, low),
                    paint(rng, (0.1, 0.9), (0.1, 0.8)),
                )
            )
            x += thick
    return shapes


def _rack(rng: np.random.Generator) -> list[Shape]:
    """A stand with a coat on it: like somebody without head or legs."""
    coat = paint(rng, (0.1, 0.8), (0.1, 0.7))
    cloth = (-0.1, -1.55), (0.1, -1.55), (0.22, -0.75), (-0.2, -0.75)
    return [
        Capsule((0, 0), (0, -1.75), 0.025, 0.02, _BLACK),
        Capsule((-0.2, 0), (0.2, 0), 0.02, 0.02, _BLACK),
        Capsule((-0.18, -1.72), (0.18, -1.72), 0.02, 0.02, _BLACK),
        Polygon(cloth, coat, 0.04, bulge=0.6),
    ]


_CLUTTER: Final = {
    "pole": _pole,
    "sign": _sign,
    "bollard": _bollard,
    "bin": _bin,
    "bush": _bush,
    "tree": _tree,
    "cone": _cone,
    "bench": _bench,
    "lamp": _lamp,
    "plant": _plant,
    "chair": _chair,
    "table": _table,
    "shelf": _shelf,
    "rack": _rack,
}
