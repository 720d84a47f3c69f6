"""People of generated scenes: drawn at random, dressed and posed.

Somebody is a list of solid shapes (:mod:`device_emulator.camera.scenes.shapes`), in metres, that stands at (0, 0). A
*view* is the angle by which one is turned from facing the camera: 0 faces it, π/2 faces right. Body proportions are
shares of stature near those of Drillis and Contini (1966).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from device_emulator.camera.scenes.shapes import Capsule, Colour, Ellipse, Point, Polygon, Shape, paint, tone

STEP_RAD: Final = 0.42
"""How far a walker's thigh swings to the front and to the back."""
_THIGH: Final = 0.245
_SHANK: Final = 0.235
_HIP: Final = _THIGH + _SHANK + 0.02
"""Shares of stature; the sole adds 0.02."""

_EVEN: Final = 0.97
_UPRIGHT: Final = 0.03
_DARK: Final = (0.012, 0.012, 0.014)


@dataclass(frozen=True)
class Arm:
    """Radian from hanging down: upper arm to the front and to the side, then the forearm beyond it."""

    front: float = 0.05
    side: float = 0.12
    elbow_front: float = 0.15
    elbow_side: float = 0.0


GESTURES: Final = {
    "hang": Arm(),
    "wave": Arm(0.0, 1.7, 0.0, 1.2),
    "up": Arm(0.2, 2.6, 0.0, 0.3),
    "hip": Arm(-0.2, 0.75, 0.1, -1.3),
    "phone": Arm(0.7, 0.35, 2.0, -0.4),
    "point": Arm(1.45, 0.1, 0.05),
    "aside": Arm(0.0, 1.45, 0.0),
    "hold": Arm(0.35, 0.2, 1.2, -0.2),
    "pocket": Arm(-0.25, 0.3, 0.5, -0.3),
}


@dataclass(frozen=True)
class Person:
    """How somebody looks: what does not change with the pose."""

    stature: float
    girth: float
    skin: Colour
    hair: Colour
    top: Colour
    band: Colour
    legs: Colour
    shoes: Colour
    bag: Colour
    hair_style: str
    sleeve: str
    bottom: str
    top_style: str
    carries: str

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Person:
        """Somebody."""
        pale = rng.random() ** 0.8
        skin = (0.07 + 0.5 * pale, 0.035 + 0.31 * pale, 0.02 + 0.2 * pale)
        hair = tone((0.5, 0.3, 0.14), rng.uniform(0.03, 0.9) ** 1.5) if rng.random() < 0.85 else (0.35, 0.35, 0.35)
        bright, dull = ((0.35, 0.95), (0.35, 0.95)), ((0.0, 0.3), (0.1, 0.95))
        jeans = ((0.2, 0.6), (0.12, 0.45))
        return cls(
            stature=rng.uniform(1.5, 1.9) if rng.random() < 0.85 else rng.uniform(1.05, 1.5),
            girth=float(np.exp(rng.normal(0.05, 0.14))),
            skin=skin,
            hair=hair,
            top=paint(rng, *(bright if rng.random() < 0.6 else dull)),
            band=paint(rng, *(bright if rng.random() < 0.5 else dull)),
            legs=paint(rng, *(jeans if rng.random() < 0.6 else dull)),
            shoes=paint(rng, (0.0, 0.5), (0.08, 0.9)),
            bag=paint(rng, (0.2, 0.9), (0.1, 0.7)),
            hair_style=str(
                rng.choice(["short", "long", "bald", "bun", "cap", "hood"], p=[0.4, 0.22, 0.06, 0.1, 0.14, 0.08])
            ),
            sleeve=str(rng.choice(["long", "short"], p=[0.65, 0.35])),
            bottom=str(rng.choice(["trousers", "shorts", "skirt", "coat"], p=[0.6, 0.12, 0.14, 0.14])),
            top_style=str(rng.choice(["plain", "stripes", "block", "open"], p=[0.5, 0.18, 0.17, 0.15])),
            carries=str(rng.choice(["nothing", "backpack", "bag"], p=[0.62, 0.2, 0.18])),
        )

    def swing(self, metres: float) -> float:
        """The phase of a walker's step after a way of so many metres, at which feet do not slide."""
        return 2 * math.pi * metres / (4 * (_THIGH + _SHANK) * self.stature * math.sin(STEP_RAD))


@dataclass(frozen=True)
class Pose:
    """Where the limbs are. ``phase``: of the step in radian; ``stride``: 0 stands, 1 walks."""

    view: float
    phase: float = 0.0
    stride: float = 0.0
    left: Arm = GESTURES["hang"]
    right: Arm = GESTURES["hang"]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Pose:
        """Any pose."""
        sideways = rng.choice([0.0, math.pi, math.pi / 2, -math.pi / 2])
        view = float(sideways + rng.normal(0, 0.45))
        names = list(GESTURES)
        shares = [0.3, 0.12, 0.06, 0.12, 0.1, 0.06, 0.05, 0.09, 0.1]
        left = GESTURES[names[rng.choice(len(names), p=shares)]]
        right = GESTURES[names[rng.choice(len(names), p=shares)]] if rng.random() < 0.7 else left
        if rng.random() < 0.5:
            return cls(view, rng.uniform(0, 2 * math.pi), rng.uniform(0.6, 1.2), *cls.swinging(rng, left))
        return cls(view, math.pi / 2, rng.uniform(0, 0.35), left, right)

    @staticmethod
    def swinging(rng: np.random.Generator, other: Arm) -> tuple[Arm, Arm]:
        """Arms of a walker: most swing, some do something else too."""
        hang = GESTURES["hang"]
        return (other, hang) if rng.random() < 0.3 else (hang, hang)


class _Body:
    """A person's joints, turned into the image plane."""

    def __init__(self, person: Person, pose: Pose) -> None:
        self.person, self.pose = person, pose
        self.sin, self.cos = math.sin(pose.view), math.cos(pose.view)
        self.legs = [self._angles(side) for side in (0, 1)]
        # The pelvis is as high as the longer leg lets it be: it bobs as it does in walking.
        self.hip = max(_THIGH * math.cos(hip) + _SHANK * math.cos(hip - knee) for hip, knee in self.legs) + 0.02
        self.up = self.hip - _HIP

    def _angles(self, side: int) -> tuple[float, float]:
        phase = self.pose.phase + math.pi * side
        # Nearly a triangle: a foot on the ground moves back as evenly as the ground does.
        hip = STEP_RAD * self.pose.stride * math.asin(_EVEN * math.sin(phase)) / math.asin(_EVEN)
        return hip, self.pose.stride * (0.12 + 0.75 * max(0.0, math.cos(phase)))

    def at(self, front: float, side: float, height: float) -> Point:
        """A point of the body, shares of stature, in the image: metres."""
        tall = self.person.stature
        return (front * self.sin + side * self.cos) * tall, -height * tall

    def near(self, front: float, side: float) -> float:
        """How much nearer to the camera than the spine."""
        return front * self.cos - side * self.sin

    def wide(self, side: float, front: float) -> float:
        """Half the width in the image of a part with these half axes, shares of stature."""
        return math.hypot(side * self.cos, front * self.sin) * self.person.girth

    def leg(self, side: int) -> list[Shape]:
        """From the back to the front: shoe, shank, thigh."""
        person, (hip, knee) = self.person, self.legs[side]
        across = 0.05 * (1 - 2 * side)
        knee_at = _THIGH * math.sin(hip), self.hip - _THIGH * math.cos(hip)
        foot_at = knee_at[0] + _SHANK * math.sin(hip - knee), knee_at[1] - _SHANK * math.cos(hip - knee)
        tilt = 0.6 * (hip - knee)
        toe = foot_at[0] + 0.095 * math.cos(tilt), max(0.013, foot_at[1] + 0.095 * math.sin(tilt))
        top, middle = self.at(0, across * 0.9, self.hip), self.at(knee_at[0], across, knee_at[1])
        bottom = self.at(foot_at[0], across, foot_at[1])
        unit = person.stature * math.sqrt(person.girth)
        bare = person.bottom in ("shorts", "skirt")
        return [
            Capsule(bottom, self.at(toe[0], across * 1.4, toe[1]), 0.024 * unit, 0.018 * unit, person.shoes),
            Capsule(
                middle,
                bottom,
                (0.032 if bare else 0.037) * unit,
                (0.021 if bare else 0.028) * unit,
                person.skin if bare else person.legs,
            ),
            Capsule(top, middle, 0.054 * unit, 0.037 * unit, person.legs),
        ]

    def arm(self, side: int) -> tuple[float, list[Shape]]:
        """How near it is, and shapes: forearm, hand, upper arm."""
        person, sign = self.person, 1 - 2 * side
        arm = (self.pose.left, self.pose.right)[side]
        swing = -0.9 * self.legs[side][0]
        front, out = arm.front + swing, arm.side
        shoulder = (0.0, sign * 0.112 * math.sqrt(person.girth), 0.80 + self.up)
        elbow = _reach(shoulder, 0.172, front, sign * out)
        bend = arm.elbow_front + abs(swing) * 0.5
        wrist = _reach(elbow, 0.15, front + bend, sign * (out + arm.elbow_side))
        hand = _reach(wrist, 0.04, front + bend, sign * (out + arm.elbow_side))
        unit = person.stature * math.sqrt(person.girth)
        bare = person.skin if person.sleeve == "short" else person.top
        shapes: list[Shape] = [
            Capsule(self.at(*wrist), self.at(*hand), 0.017 * unit, 0.015 * unit, person.skin),
            Capsule(self.at(*elbow), self.at(*wrist), 0.023 * unit, 0.018 * unit, bare),
            Capsule(self.at(*shoulder), self.at(*elbow), 0.031 * unit, 0.025 * unit, person.top),
        ]
        if person.carries == "bag" and side == 1 and hand[2] < 0.55:
            x, y = self.at(*hand)
            half = 0.1 + 0.06 * abs(self.sin)
            face = (x - half, y + 0.06), (x + half, y + 0.06), (x + half * 1.1, y + 0.34), (x - half * 1.1, y + 0.34)
            shapes = [
                Polygon(face, person.bag, 0.03, crown=0.3),
                Capsule((x - half * 0.7, y + 0.08), (x, y), 0.008, 0.008, person.bag),
                Capsule((x + half * 0.7, y + 0.08), (x, y), 0.008, 0.008, person.bag),
                *shapes,
            ]
        return self.near(hand[0] + elbow[0], hand[1] + elbow[1]) / 2, shapes

    def torso(self) -> list[Shape]:
        """Pelvis, trunk and what is worn over it."""
        person, tall = self.person, self.person.stature
        lean = 0.02 * self.pose.stride

        def level(height: float, side: float, front: float) -> tuple[Point, Point]:
            x, y = self.at(lean * (height - 0.5), 0, height + self.up)
            half = self.wide(side, front) * tall
            return (x - half, y), (x + half, y)

        def between(upper: tuple[Point, Point], lower: tuple[Point, Point], colour: Colour, rounding: float) -> Polygon:
            return Polygon((*upper, *lower[::-1]), colour, rounding * tall, bulge=0.75)

        shoulders, chest = level(0.825, 0.112, 0.062), level(0.72, 0.112, 0.078)
        waist, hips = level(0.60, 0.09, 0.072), level(0.50, 0.1, 0.085)
        shapes: list[Shape] = [between(waist, level(0.455, 0.098, 0.085), person.legs, 0.03)]
        if person.bottom in ("skirt", "coat"):
            hem = level(0.27, 0.125 + 0.03 * self.pose.stride, 0.11 + 0.06 * self.pose.stride)
            shapes.append(between(waist, hem, person.top if person.bottom == "coat" else person.legs, 0.01))
        shapes += [
            between(chest, hips, person.top, 0.02),
            between(shoulders, level(0.6, 0.092, 0.074), person.top, 0.045),
        ]
        if person.top_style == "stripes":
            for height in (0.76, 0.69, 0.62, 0.55):
                shapes.append(
                    between(level(height, 0.108, 0.074), level(height - 0.03, 0.104, 0.074), person.band, 0.0)
                )
        elif person.top_style == "block":
            shapes.append(between(level(0.8, 0.111, 0.07), level(0.7, 0.111, 0.078), person.band, 0.0))
        elif person.top_style == "open" and self.cos > _UPRIGHT:
            (x, y), half = self.at(0.06, 0, 0.82 + self.up), 0.03 * tall * self.cos
            foot = self.at(0.08, 0, 0.5 + self.up)
            face = (x - half, y), (x + half, y), (foot[0] + half, foot[1]), (foot[0] - half, foot[1])
            shapes.append(Polygon(face, person.band, right=0.4 * self.sin))
        return shapes

    def head(self) -> list[Shape]:
        """Neck, head, hair and, from the front, a hint of a face."""
        person, tall = self.person, self.person.stature
        skull = self.at(0.012, 0, 0.937 + self.up)
        face = self.at(0.022, 0, 0.925 + self.up)
        rx, ry = self.wide(0.047, 0.055) / person.girth * tall, 0.064 * tall
        neck = Capsule(
            self.at(0, 0, 0.83 + self.up), self.at(0.01, 0, 0.89 + self.up), 0.031 * tall, 0.028 * tall, person.skin
        )
        hair = person.top if person.hair_style == "hood" else person.hair
        mop = Ellipse(
            self.at(-0.004, 0, 0.945 + self.up),
            rx * 1.1,
            ry * 1.02,
            person.skin if person.hair_style == "bald" else hair,
        )
        shapes: list[Shape] = [neck, Ellipse(skull, rx, ry, person.skin), mop]
        behind = [
            Capsule(self.at(-0.02, 0, 0.93 + self.up), self.at(-0.035, 0, 0.83 + self.up), rx * 1.05, rx * 1.1, hair)
        ]
        if person.hair_style == "bun":
            behind = [
                Capsule(self.at(-0.07, 0, 0.965 + self.up), self.at(-0.07, 0, 0.96 + self.up), rx * 0.5, rx * 0.5, hair)
            ]
        elif person.hair_style not in ("long", "hood"):
            behind = []
        if self.cos > -0.35:
            shapes += [Ellipse((face[0] + 0.012 * tall * self.sin, face[1]), rx * 0.88, ry * 0.82, person.skin)]
        if self.cos > 0.35:
            for side in (-0.02, 0.02):
                shapes.append(Ellipse(self.at(0.05, side, 0.935 + self.up), 0.007 * tall, 0.0045 * tall, _DARK))
            mouth = self.at(0.055, 0, 0.897 + self.up)
            shapes.append(Ellipse(mouth, 0.014 * tall, 0.004 * tall, tone(person.skin, 0.45)))
        if person.hair_style == "cap":
            (x, y), brim = self.at(0, 0, 0.962 + self.up), self.at(0.1, 0, 0.958 + self.up)
            dome = (x - rx * 1.08, y), (x - rx * 0.8, y - ry * 0.6), (x + rx * 0.8, y - ry * 0.6), (x + rx * 1.08, y)
            shapes += [
                Polygon(dome, person.band, 0.02, bulge=0.7),
                Capsule((x, y), brim, 0.01 * tall, 0.008 * tall, person.band),
            ]
        return [*shapes, *behind] if self.cos < 0 else [*behind, *shapes]


def _reach(start: tuple[float, float, float], length: float, front: float, side: float) -> tuple[float, float, float]:
    f, s, z = start
    flat = math.cos(side) * length
    return f + flat * math.sin(front), s + length * math.sin(side), z - flat * math.cos(front)


def person(looks: Person, pose: Pose) -> list[Shape]:
    """Somebody in a pose, from the back to the front."""
    body = _Body(looks, pose)
    order = (0, 1) if body.near(body.legs[0][0] * 0.2, 0.05) < body.near(body.legs[1][0] * 0.2, -0.05) else (1, 0)
    shapes = [shape for side in order for shape in body.leg(side)]
    parts = [body.arm(side) for side in (0, 1)]
    if looks.carries == "backpack":
        (x, y), half = body.at(-0.1, 0, 0.79 + body.up), body.wide(0.085, 0.05) * looks.stature
        pack = (x - half, y), (x + half, y), (x + half, y + 0.29 * looks.stature), (x - half, y + 0.29 * looks.stature)
        parts.append((body.near(-0.1, 0), [Polygon(pack, looks.bag, 0.05, bulge=0.5, crown=0.3)]))
    parts.sort(key=lambda part: part[0])
    back = [shape for near, part in parts if near < 0 for shape in part]
    front = [shape for near, part in parts if near >= 0 for shape in part]
    return [*back, *shapes, *body.torso(), *body.head(), *front]
