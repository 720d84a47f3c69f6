"""Cars and parcels of generated scenes, drawn at random.

Each is a list of solid shapes (:mod:`device_emulator.camera.scenes.shapes`), in metres, that stands at (0, 0).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from device_emulator.camera.scenes.shapes import Capsule, Colour, Ellipse, Point, Polygon, Shape, paint, quad, tone

_TYRE: Final = (0.012, 0.012, 0.013)
_GLASS: Final = (0.03, 0.04, 0.05)
_METAL: Final = (0.35, 0.35, 0.36)

_PROFILES: Final = {
    # Waist and roof of each kind of car from the rear to the front: shares of half its length, and heights in metres.
    "saloon": ((-0.97, 0.92), (0.97, 0.74), (-0.72, 0.95), (-0.42, 1.42), (0.12, 1.42), (0.46, 0.92)),
    "hatchback": ((-0.97, 0.95), (0.97, 0.76), (-0.95, 0.98), (-0.78, 1.46), (0.1, 1.48), (0.48, 0.94)),
    "estate": ((-0.98, 0.98), (0.97, 0.8), (-0.97, 1.0), (-0.9, 1.5), (0.12, 1.5), (0.44, 0.96)),
    "van": ((-0.99, 1.1), (0.98, 0.95), (-0.99, 1.2), (-0.97, 2.0), (0.42, 2.0), (0.76, 1.08)),
}


def _car_flank(kind: str, half: float, body: Colour, van: bool) -> list[Shape]:  # noqa: FBT001
    """Seen from its left, driving to the right."""
    (rx, rz), (fx, fz), *roof = _PROFILES[kind]
    waist = (
        ((rx - 0.02) * half, -rz),
        (0.45 * half, -rz),
        (fx * half, -fz),
        (half, -0.5),
        (0.97 * half, -0.24),
        (-0.98 * half, -0.24),
        (-half, -0.5),
    )
    house = tuple((u * half, -z) for u, z in roof)
    low = -max(z for _, z in roof[:1]) + 0.02
    shapes: list[Shape] = [
        Polygon((*house, (house[-1][0], -0.8), (house[0][0], -0.8)), body, 0.06, down=-0.15, crown=0.25),
        Polygon(waist, body, 0.09, down=-0.1, crown=0.6),
    ]
    top, ends = house[1][1] + 0.09, (house[1][0], house[2][0])
    rear, front = house[0][0] + 0.1, house[3][0] - 0.1
    first = ends[1] - 0.55 if van else ends[0] + 0.06
    corners = (
        (max(first, ends[0] + 0.06), top),
        (ends[1] - 0.02, top),
        (front - 0.02, low),
        (first if van else rear + 0.04, low),
    )
    shapes.append(Polygon(corners, _GLASS, 0.03, down=-0.5))
    posts = () if van else ((ends[0] + ends[1]) / 2 - 0.05, ends[0] + 0.18)
    shapes += [Polygon(quad(x - 0.04, top - 0.02, x + 0.04, low + 0.02), body, down=-0.1) for x in posts]
    seams = ends[1] - 0.02, (ends[0] + ends[1]) / 2 - 0.05
    shapes += [Capsule((x, low + 0.05), (x, -0.32), 0.008, 0.008, tone(body, 0.35)) for x in seams]
    shapes += [
        Capsule((-0.96 * half, -0.33), (0.96 * half, -0.33), 0.05, 0.05, tone(body, 0.3)),
        Ellipse((0.94 * half, -0.66), 0.1, 0.06, (0.8, 0.8, 0.75)),
        Ellipse((-0.97 * half, -0.75), 0.06, 0.1, (0.5, 0.02, 0.02)),
    ]
    for axle in (-0.62 * half, 0.62 * half):
        shapes += [
            Ellipse((axle, -0.33), 0.38, 0.36, (0.006, 0.006, 0.006)),
            Ellipse((axle, -0.31), 0.31, 0.31, _TYRE),
            Ellipse((axle, -0.31), 0.19, 0.19, _METAL),
            Ellipse((axle, -0.31), 0.06, 0.06, (0.1, 0.1, 0.1)),
        ]
    return shapes


def _car_face(kind: str, body: Colour, rear: bool) -> list[Shape]:  # noqa: FBT001
    """Seen from the front or from the rear."""
    roof, waist = _PROFILES[kind][3][1], _PROFILES[kind][5][1]
    half = 0.95 if kind == "van" else 0.87
    slope = 0.08 if kind == "van" else 0.2
    lamp = (0.45, 0.015, 0.015) if rear else (0.85, 0.85, 0.78)
    shapes: list[Shape] = [
        *(Polygon(quad(x - 0.12, -0.5, x + 0.12, 0.0), _TYRE, 0.05) for x in (-half + 0.15, half - 0.15)),
        Polygon(
            ((-half + slope, -roof), (half - slope, -roof), (half, -waist + 0.1), (-half, -waist + 0.1)),
            body,
            0.08,
            crown=0.3,
        ),
        Polygon(quad(-half, -waist - 0.02, half, -0.22), body, 0.1, down=-0.1, bulge=0.3, crown=0.5),
    ]
    inner = slope + 0.06
    glass = (-half + inner, -roof + 0.1), (half - inner, -roof + 0.1), (half - 0.12, -waist), (-half + 0.12, -waist)
    shapes.append(Polygon(glass, _GLASS, 0.04, down=-0.6))
    shapes += [Polygon(quad(x - 0.15, -0.76, x + 0.15, -0.6), lamp, 0.05) for x in (-half + 0.2, half - 0.2)]
    shapes += [
        Polygon(quad(-0.4, -0.62, 0.4, -0.5) if not rear else quad(-0.5, -0.5, 0.5, -0.47), _TYRE, 0.02),
        Polygon(quad(-0.26, -0.45, 0.26, -0.34), (0.75, 0.75, 0.7) if not rear else (0.7, 0.6, 0.15)),
        Capsule((-half + 0.05, -0.28), (half - 0.05, -0.28), 0.05, 0.05, tone(body, 0.25)),
    ]
    return shapes


def _turned(shapes: list[Shape], scale: float, shift: float, right: float) -> list[Shape]:
    """Shapes on a plane that is turned about the vertical: narrower, moved, and facing more to one side."""

    def to(point: Point) -> Point:
        return point[0] * scale + shift, point[1]

    turned: list[Shape] = []
    for shape in shapes:
        if isinstance(shape, Polygon):
            corners = tuple(map(to, shape.corners))
            corners = corners if scale > 0 else corners[::-1]
            turned.append(
                Polygon(
                    corners,
                    shape.colour,
                    shape.round * min(1, abs(scale) + 0.2),
                    right,
                    shape.down,
                    shape.bulge,
                    shape.crown,
                )
            )
        elif isinstance(shape, Ellipse):
            turned.append(Ellipse(to(shape.at), shape.rx * abs(scale), shape.ry, shape.colour))
        else:
            turned.append(Capsule(to(shape.a), to(shape.b), shape.thick, shape.thin, shape.colour))
    return turned


def car(rng: np.random.Generator, way: int | None = None) -> list[Shape]:
    """A car. ``way``: 1 drives to the right and -1 to the left, seen from its side; otherwise it stands as it likes."""
    kind = str(rng.choice(list(_PROFILES), p=[0.32, 0.32, 0.2, 0.16]))
    half = {"saloon": 2.2, "hatchback": 1.9, "estate": 2.2, "van": 2.5}[kind] * rng.uniform(0.93, 1.07)
    body = paint(rng, (0.5, 0.95), (0.3, 0.9)) if rng.random() < 0.55 else paint(rng, (0.0, 0.1), (0.12, 0.95))
    turn = rng.choice([0.0, 0.5, 1.0], p=[0.5, 0.35, 0.15])
    yaw = math.pi / 2 * turn if turn != 0.5 else rng.uniform(0.25, 0.9)
    rear = bool(rng.random() < 0.5)
    sign = (1 if rng.random() < 0.5 else -1) if way is None else way
    if way is not None:
        yaw = 0.0
    flank, face = _car_flank(kind, half, body, kind == "van"), _car_face(kind, body, rear)
    along, across = math.cos(yaw), math.sin(yaw)
    # The visible end joins the flank: the front on the side to which the car drives, the rear on the other.
    end = -sign if rear else sign
    width = 0.95 if kind == "van" else 0.87
    shapes: list[Shape] = []
    if along > 0.1:
        shapes += _turned(flank, sign * along, -end * across * width, -end * across * 0.8)
    if across > 0.1:
        shapes += _turned(face, across, end * along * half * 0.97, end * along * 0.8)
    return shapes


def parcel(rng: np.random.Generator, looks_down: float) -> list[Shape]:
    """A cardboard box or a wooden crate. ``looks_down``: tangent of the angle by which the camera looks down on it."""
    wood = bool(rng.random() < 0.45)
    base = (0.36, 0.22, 0.11) if rng.random() < 0.75 else paint(rng, (0.3, 0.8), (0.3, 0.85))
    colour = tone(base, rng.uniform(0.6, 1.25))
    wide, deep, high = rng.uniform(0.45, 0.95), rng.uniform(0.4, 0.8), rng.uniform(0.35, 0.85)
    yaw = rng.uniform(0.12, 1.4)
    cos, sin = math.cos(yaw), math.sin(yaw)

    def at(x: float, z: float, y: float) -> Point:
        # Two axes of the floor, then height; (0, 0) is the corner next to the camera.
        far = x * sin + z * cos
        return x * cos - z * sin, -y - far * looks_down

    middle = (wide * cos - deep * sin) / 2

    def face(points: list[tuple[float, float, float]], share: Colour, right: float, down: float) -> Polygon:
        return Polygon(tuple((x - middle, y) for x, y in (at(*p) for p in points)), share, 0.0, right, down)

    def panel(side: int, u0: float, u1: float, v0: float, v1: float, share: Colour) -> Polygon:
        length = (wide, deep)[side]
        ends = [(u1, u0), (u0, u1)][1 - side]
        along = [(u * length, 0.0) if side == 0 else (0.0, u * length) for u in ends]
        points = [(*along[0], v1 * high), (*along[1], v1 * high), (*along[1], v0 * high), (*along[0], v0 * high)]
        return face(points, share, (sin if side == 0 else -cos) * 0.8, 0.0)

    lid = [(0.0, 0.0, high), (0.0, deep, high), (wide, deep, high), (wide, 0.0, high)]
    shapes: list[Shape] = [face(lid, tone(colour, 1.1), 0.0, -0.9)]
    light, dark = tone(colour, 1.35), tone(colour, 0.45)
    if not wood:
        tape = [
            (0.0, deep * 0.42, high),
            (0.0, deep * 0.58, high),
            (wide, deep * 0.58, high),
            (wide, deep * 0.42, high),
        ]
        shapes.append(face(tape, tone(colour, 1.7), 0.0, -0.9))
    label = rng.random() < 0.6
    for side in (0, 1):
        shapes.append(panel(side, 0, 1, 0, 1, colour))
        if wood:
            count = int(rng.integers(3, 6))
            shapes += [panel(side, 0, 1, k / count - 0.02, k / count + 0.02, dark) for k in range(1, count)]
            edges = (0.0, 0.14, 0.0, 1.0), (0.86, 1.0, 0.0, 1.0), (0.0, 1.0, 0.0, 0.12), (0.0, 1.0, 0.88, 1.0)
            shapes += [panel(side, u0, u1, v0, v1, light) for u0, u1, v0, v1 in edges]
        else:
            shapes.append(
                panel(side, 0.43, 0.57, 0.72, 1, tone(colour, 1.6)) if side else panel(side, 0, 1, 0.0, 0.02, dark)
            )
            if label and side == 0:
                shapes += [
                    panel(0, 0.55, 0.9, 0.3, 0.6, (0.75, 0.75, 0.72)),
                    panel(0, 0.6, 0.85, 0.4, 0.46, (0.03, 0.03, 0.03)),
                ]
    return shapes
