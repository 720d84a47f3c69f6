"""Generated scenes for a camera node: what light falls on its sensor, and where the figures are.

No photograph is needed for a demo, and none is replayed: places (:mod:`~device_emulator.camera.scenes.scenery`), people
(:mod:`~device_emulator.camera.scenes.people`), cars and parcels (:mod:`~device_emulator.camera.scenes.things`) and
clutter are drawn from a seed. A detector that is trained on them knows these drawings and no more.

:func:`still` draws one scene after another, each in a place of its own; a :class:`Walkabout` is one place in which
figures come and go. Light is linear. Same seed, same bytes, on the same machine with the same numpy.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from device_emulator.camera.scenes.backdrop import GRAIN, Camera, paste
from device_emulator.camera.scenes.people import GESTURES, Arm, Person, Pose, person
from device_emulator.camera.scenes.scenery import FINE, Placed, Stage, stage
from device_emulator.camera.scenes.shapes import Image, Shape, render
from device_emulator.camera.scenes.things import car, parcel
from quantization.raw import check_size

CLASSES: Final = ("person", "car", "parcel")
PERSON, CAR, PARCEL = range(3)

MIN_VISIBLE: Final = 0.25
"""A figure of which less than this share is seen, because of the frame's edge or what stands before it, has no box."""
MIN_WIDTH: Final = 6.0
"""Nor has one whose visible part is narrower: photosites."""

_SHARES: Final = {"room": (0.68, 0.0, 0.32), "street": (0.43, 0.42, 0.15), "park": (0.7, 0.0, 0.3)}
_COUNTS: Final = (0.08, 0.22, 0.23, 0.19, 0.14, 0.08, 0.06)
_WIDE: Final = (0.5, 4.8, 1.1)
_DEEP: Final = (0.5, 2.0, 0.9)
_TRIES: Final = 4
# Metres that figures of each class take up on the ground, and how often a free place is looked for.
_SLOTS: Final = 5
# Walkers of a walkabout at a time, at most.
_ABSENT: Final = 0.2
_PAUSES: Final = 0.4
# Shares of visits that do not take place, and of walkers who stop.
_FAR_M: Final = 10.0
# No walker is farther away.
_TURN_S: Final = 0.7
_STRIDE_M: Final = 0.5
# How soon who stops has turned, and from how far on steps become short.


@dataclass(frozen=True)
class Box:
    """The visible extent of a figure: photosites from the top left corner of the frame, ends excluded."""

    label: int
    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True, eq=False)
class Scene:
    """What a camera sees.

    Args:
        light: ``[H, W, 3]`` float32, red, green and blue, linear: 1 is about white, 0.12 about the mean; 0 to 1.2.
        boxes: the figures of :data:`CLASSES` in it, the farthest first.
    """

    light: Image
    boxes: tuple[Box, ...]


def still(rng: np.random.Generator, width: int = 320, height: int = 240) -> Scene:
    """Any scene, with none to six figures.

    Raises:
        FrameError: sides that no mosaic has.
    """
    check_size(height, width)
    place = stage(rng, width, height)
    figures: list[Placed] = []
    taken: list[tuple[int, float, float]] = []
    for _ in range(int(rng.choice(len(_COUNTS), p=_COUNTS))):
        label = int(rng.choice(3, p=_SHARES[place.kind]))
        for _ in range(_TRIES):
            x, depth = _spot(rng, place, label, taken)
            if all(_apart((label, x, depth), other) for other in taken):
                taken.append((label, x, depth))
                figures.append(_place(place, label, _draw(rng, label, place.camera, depth), x, depth))
                break
    return _compose(place, figures)


def _spot(
    rng: np.random.Generator, place: Stage, label: int, taken: list[tuple[int, float, float]]
) -> tuple[float, float]:
    """Where a figure might stand: metres right of the middle, and away."""
    near, far = place.road if label == CAR and place.road else (2.2, place.back - 0.4)
    depth = math.exp(rng.uniform(math.log(near + 0.5), math.log(far)))
    reach = place.camera.width / 2 / place.camera.scale(depth)
    x = rng.uniform(-1.0, 1.0) * reach
    if taken and rng.random() < 0.3:
        # Half behind another, or half in front of it.
        _, other_x, other_depth = taken[-1]
        x = other_x / other_depth * depth + rng.uniform(-0.7, 0.7)
    return float(np.clip(x, *place.aisle)), depth


def _apart(one: tuple[int, float, float], other: tuple[int, float, float]) -> bool:
    """Two figures that do not stand in one another."""
    (first, x, depth), (second, other_x, other_depth) = one, other
    return (
        abs(x - other_x) > (_WIDE[first] + _WIDE[second]) / 2
        or abs(depth - other_depth) > (_DEEP[first] + _DEEP[second]) / 2
    )


def _draw(rng: np.random.Generator, label: int, camera: Camera, depth: float) -> list[Shape]:
    if label == PERSON:
        return person(Person.draw(rng), Pose.draw(rng))
    return car(rng) if label == CAR else parcel(rng, camera.above / depth)


def _place(place: Stage, label: int, shapes: list[Shape], x: float, depth: float) -> Placed:
    camera = place.camera
    patch = render(shapes, camera.scale(depth), place.lighting, GRAIN)
    return Placed(depth, camera.column(x, depth), patch, label)


def _compose(place: Stage, figures: list[Placed]) -> Scene:
    """Lay everything over the place, the farthest first, and see what is left of each figure."""
    light = place.light.copy()
    owner = np.full(light.shape[1:], -1, dtype=np.int16)
    everything = sorted([*place.standing, *figures], key=lambda placed: -placed.depth)
    for placed in everything:
        _shade(light, placed, place)
    seen = []
    for number, placed in enumerate(everything):
        rows, columns, own_rows, own_columns = paste(light, placed.patch, placed.x, place.camera.row(placed.depth))
        solid = placed.patch.cover > 0.5
        owner[rows, columns][solid[own_rows, own_columns]] = number
        seen.append((placed, rows, columns, int(np.count_nonzero(solid))))
    boxes = []
    for number, (placed, rows, columns, whole) in enumerate(seen):
        if placed.label is None:
            continue
        left = owner[rows, columns] == number
        if np.count_nonzero(left) < MIN_VISIBLE * whole:
            continue
        ys, xs = np.flatnonzero(left.any(axis=1)), np.flatnonzero(left.any(axis=0))
        x0, x1 = ((columns.start + int(x)) / FINE for x in (xs[0], xs[-1] + 1))
        y0, y1 = ((rows.start + int(y)) / FINE for y in (ys[0], ys[-1] + 1))
        if x1 - x0 >= MIN_WIDTH:
            boxes.append(Box(placed.label, x0, y0, x1, y1))
    return Scene(place.finish(light), tuple(boxes))


def _shade(light: Image, placed: Placed, place: Stage) -> None:
    """Darken the ground where a thing keeps the lamp's light off it, and a little all around its foot."""
    patch, camera = placed.patch, place.camera
    foot, x = camera.row(placed.depth), placed.x
    across, down = place.lighting.shadow
    high, wide = patch.cover.shape
    cover = patch.cover[: min(high, -patch.top)]
    edge = max(0, round(camera.row(place.back)))
    first, last = sorted((foot, foot + down * len(cover)))
    rows = np.arange(max(edge, math.floor(first)), min(light.shape[1], math.ceil(last)))
    if len(rows):
        # The shadow's row tells how high above the ground it was cast, and so by how much it is shifted.
        up = (rows + 0.5 - foot) / down
        source = np.clip(len(cover) - 1 - up, 0, len(cover) - 1).astype(np.int64)
        shift = across * up
        left = max(0, math.floor(x + patch.left + shift.min()))
        right = min(light.shape[2], math.ceil(x + patch.left + wide + shift.max()))
        columns = (np.arange(left, right) - (x + patch.left) - shift[:, None]).astype(np.int64)
        inside = (columns >= 0) & (columns < wide)
        shadow = cover[source[:, None], np.clip(columns, 0, wide - 1)] * inside
        if shadow.size:
            shadow = _blurred(shadow)
            for plane, shade in zip(light, place.lighting.shade, strict=True):
                plane[rows[0] : rows[-1] + 1, left:right] *= 1 - shadow * (1 - shade)
    _contact(light, x + patch.left + wide / 2, foot, wide * 0.55, edge)


def _contact(light: Image, x: float, y: float, half: float, edge: int) -> None:
    flat = max(2.0, half * 0.22)
    rows = slice(max(edge, round(y - flat)), min(light.shape[1], round(y + flat)))
    columns = slice(max(0, round(x - half)), min(light.shape[2], round(x + half)))
    if rows.start < rows.stop and columns.start < columns.stop:
        v = (np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(y)) / np.float32(flat)
        u = (np.arange(columns.start, columns.stop, dtype=np.float32) - np.float32(x)) / np.float32(half)
        light[:, rows, columns] *= 1 - 0.45 * np.maximum(0, 1 - u * u - v * v)


def _blurred(shadow: Image) -> Image:
    """Mean over a few pixels along and across."""
    wide = np.pad(shadow, 2, mode="edge")
    rows = wide[:-4] + wide[1:-3] + wide[2:-2] + wide[3:-1] + wide[4:]
    return (rows[:, :-4] + rows[:, 1:-3] + rows[:, 2:-2] + rows[:, 3:-1] + rows[:, 4:]) / 25


@dataclass(frozen=True, eq=False)
class _Walk:
    """Somebody comes, stops for ``pause_s`` with a gesture, and goes. ``way``: x and depth of three points, metres."""

    looks: Person
    way: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
    speed: float
    pause_s: float
    gesture: Arm

    def at(self, place: Stage, since_s: float) -> Placed | None:
        (start, stop, end), hang = self.way, GESTURES["hang"]
        first = math.dist(start, stop)
        still_s = since_s - first / self.speed
        walked = self.speed * (since_s - min(max(0.0, still_s), self.pause_s))
        if walked >= first + math.dist(stop, end):
            return None
        comes = still_s < self.pause_s / 2
        a, b, share = (start, stop, walked / first) if comes else (stop, end, (walked - first) / math.dist(stop, end))
        share = min(1.0, max(0.0, share))
        x, depth = a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share
        # One who stops turns to the camera within a moment.
        turned = min(1.0, max(0.0, min(still_s, self.pause_s - still_s) / _TURN_S))
        view = math.atan2(b[0] - a[0], a[1] - b[1]) * (1 - turned)
        stride = min(1.0, abs(walked - first) / _STRIDE_M) if self.pause_s else 1.0
        raised = Arm(*(p + (q - p) * turned for p, q in zip(astuple(hang), astuple(self.gesture), strict=True)))
        pose = Pose(view, self.looks.swing(walked), stride, raised, hang)
        return _place(place, PERSON, person(self.looks, pose), x, depth)


@dataclass(frozen=True, eq=False)
class _Drive:
    """A car passes: ``speed`` in metres a second to the right, below 0 to the left."""

    car: Placed
    start: float
    speed: float

    def at(self, place: Stage, since_s: float) -> Placed | None:
        x = self.start + self.speed * since_s
        return None if abs(x) > abs(self.start) else self.car._replace(x=place.camera.column(x, self.car.depth))


class Walkabout:
    """A place in which figures come and go.

    People walk across, some of them stop on their way; cars pass where there is a road; parcels stay where they are.

    Args:
        seed: of the place and of all that happens there.
        width: photosites.
        height: photosites.

    Raises:
        FrameError: sides that no mosaic has.
    """

    def __init__(self, seed: int, width: int = 320, height: int = 240) -> None:
        check_size(height, width)
        self._seed: Final = seed
        rng = np.random.default_rng([seed, 0])
        self._place: Final = stage(rng, width, height)
        self._parcels: Final = []
        for _ in range(int(rng.integers(0, 3))):
            depth = rng.uniform(3.0, self._place.back - 0.5)
            reach = self._place.camera.width / 2 / self._place.camera.scale(depth)
            x = float(np.clip(rng.uniform(-0.9, 0.9) * reach, *self._place.aisle))
            shapes = parcel(rng, self._place.camera.above / depth)
            self._parcels.append(_place(self._place, PARCEL, shapes, x, depth))
        self._visit = lru_cache(maxsize=64)(self._draw_visit)

    def at(self, t_s: float) -> Scene:
        """The scene ``t_s`` seconds after its beginning; any time, in any order."""
        figures = [*self._parcels]
        for slot in range(_SLOTS + (self._place.road is not None)):
            # A slot's visits follow one another; the slots are out of step.
            rng = np.random.default_rng([self._seed, 1, slot])
            period_s = rng.uniform(20, 28)
            turn, since_s = divmod(t_s + rng.uniform(0, period_s), period_s)
            visit = self._visit(slot, int(turn) % 2**31, period_s)
            figure = visit.at(self._place, since_s) if visit else None
            if figure is not None:
                figures.append(figure)
        return _compose(self._place, figures)

    def _draw_visit(self, slot: int, turn: int, period_s: float) -> _Walk | _Drive | None:
        rng = np.random.default_rng([self._seed, 2, slot, turn])
        place, side = self._place, 1 if rng.random() < 0.5 else -1
        if rng.random() < _ABSENT:
            return None
        if slot == _SLOTS and place.road is not None:
            depth = rng.uniform(place.road[0] + 0.8, place.road[1])
            passing = _place(place, CAR, car(rng, side), 0.0, depth)
            start = self._reach(depth) + 3 + 2 * abs(place.lighting.shadow[0])
            return _Drive(passing, -side * start, side * rng.uniform(3.5, 8.0))
        depths = np.exp(rng.uniform(math.log(2.9), math.log(min(place.back - 0.8, _FAR_M)), 3)).tolist()
        reach = self._reach(max(depths))
        walled = place.aisle[0] > -reach or place.aisle[1] < reach
        if walled:
            # Nobody walks through a wall: who comes from the open side goes back there.
            side = 1 if -place.aisle[0] < place.aisle[1] else -1
        ends = side, side if walled else -side
        # Far enough out that not even a shadow shows.
        margin = 1.0 + 2.0 * abs(place.lighting.shadow[0])
        outer = [end * (self._reach(depth) + margin) for end, depth in zip(ends, depths[::2], strict=True)]
        pause_s = rng.uniform(2.0, 5.0) if walled or rng.random() < _PAUSES else 0.0
        if pause_s:
            middle = float(np.clip(rng.uniform(-0.8, 0.8) * self._reach(depths[1]), *place.aisle)), depths[1]
        else:
            middle = (outer[0] + outer[1]) / 2, (depths[0] + depths[2]) / 2
        way = (outer[0], depths[0]), middle, (outer[1], depths[2])
        length = math.dist(way[0], way[1]) + math.dist(way[1], way[2])
        speed = max(rng.uniform(0.9, 1.6), length / (period_s - pause_s))
        gesture = GESTURES[str(rng.choice(list(GESTURES)))]
        return _Walk(Person.draw(rng), way, speed, pause_s, gesture)

    def _reach(self, depth: float) -> float:
        """Metres from the middle to the edge of the frame."""
        return self._place.camera.width / 2 / self._place.camera.scale(depth)
