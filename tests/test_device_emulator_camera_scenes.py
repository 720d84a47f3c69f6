"""Generated scenes: boxes say what is seen, the same seed gives the same bytes, and figures move without jumps."""

import dataclasses
import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_emulator.camera.scenes.people import GESTURES, Person, Pose, _Body, person
from device_emulator.camera.scenes.scenery import FINE, MAX_LIGHT, Placed, stage
from device_emulator.camera.scenes.shapes import Capsule, Ellipse, Lighting, Patch, Polygon, quad, render
from device_emulator.camera.scenes.walkabout import (
    CAR,
    CLASSES,
    MIN_WIDTH,
    PARCEL,
    PERSON,
    Box,
    Walkabout,
    _compose,
    still,
)
from quantization.errors import FrameError

SIZES = st.sampled_from([(320, 240), (160, 120), (96, 128), (64, 48)])
NOON = Lighting((0.0, -0.6, 0.8), (0.6, 0.6, 0.6), (0.4, 0.4, 0.4), (0.3, -0.2))


def digest(scene):
    return hashlib.sha256(scene.light.tobytes() + repr(scene.boxes).encode()).hexdigest()


def check(scene, width, height):
    assert scene.light.shape == (height, width, 3)
    assert scene.light.dtype == np.float32
    assert scene.light.flags.c_contiguous
    assert np.isfinite(scene.light).all()
    assert scene.light.min() >= 0
    assert scene.light.max() <= MAX_LIGHT
    for box in scene.boxes:
        assert 0 <= box.label < len(CLASSES)
        assert 0 <= box.x0 < box.x1 <= width
        assert 0 <= box.y0 < box.y1 <= height
        assert box.x1 - box.x0 >= MIN_WIDTH


@given(st.integers(0, 2**32), SIZES)
@settings(max_examples=25, deadline=None)
def test_any_seed_gives_a_lit_scene_with_boxes_inside(seed, size):
    check(still(np.random.default_rng(seed), *size), *size)


@pytest.mark.parametrize("size", [(0, 10), (33, 24), (32, 23), (10_000, 10)])
def test_sides_that_no_mosaic_has(size):
    with pytest.raises(FrameError):
        still(np.random.default_rng(0), *size)
    with pytest.raises(FrameError):
        Walkabout(0, *size)


def test_scenes_differ_and_repeat():
    first, again = np.random.default_rng(5), np.random.default_rng(5)
    ones = [digest(still(first, 160, 120)) for _ in range(6)]
    assert ones == [digest(still(again, 160, 120)) for _ in range(6)]
    assert len(set(ones)) == 6


def test_scenes_are_varied():
    rng = np.random.default_rng(1)
    scenes = [still(rng, 160, 120) for _ in range(70)]
    counts = np.bincount([box.label for scene in scenes for box in scene.boxes], minlength=len(CLASSES))
    assert counts.min() >= 10, dict(zip(CLASSES, counts.tolist(), strict=True))
    assert {len(scene.boxes) for scene in scenes} >= {0, 1, 2, 3}
    means = np.array([scene.light.mean(axis=(0, 1)) for scene in scenes])
    assert 0.09 < np.median(means) < 0.15
    assert np.ptp(means.mean(axis=1)) > 0.04
    assert np.ptp(means[:, 0] / means[:, 2]) > 0.5
    heights = [box.y1 - box.y0 for scene in scenes for box in scene.boxes if box.label == PERSON]
    assert min(heights) < 20
    assert max(heights) > 60


def brick(width, height, depth, x, label):
    """A bright rectangle, standing; sides in photosites."""
    cover = np.ones((height * FINE, width * FINE), dtype=np.float32)
    light = np.broadcast_to(cover, (3, *cover.shape)).copy()
    return Placed(depth, x * FINE, Patch(light, cover, 0, -height * FINE), label)


@pytest.fixture
def place():
    """Nothing stands in it."""
    return dataclasses.replace(stage(np.random.default_rng(0), 160, 120), standing=())


def foot(place, depth):
    return round(place.camera.row(depth)) / FINE


def test_a_box_is_what_is_seen(place):
    bottom = foot(place, 5)
    assert bottom > 40
    (box,) = _compose(place, [brick(20, 30, 5, 50, PARCEL)]).boxes
    assert box == Box(PARCEL, 50, bottom - 30, 70, bottom)
    (cut,) = _compose(place, [brick(20, 30, 5, -10, PERSON)]).boxes
    assert cut == Box(PERSON, 0, bottom - 30, 10, bottom)


def test_what_stands_before_a_figure_cuts_its_box(place):
    behind, before = brick(20, 30, 5, 50, PARCEL), brick(12, 60, 4, 58, None)
    (box,) = _compose(place, [before, behind]).boxes
    assert (box.x0, box.x1) == (50, 58)
    both = _compose(place, [before._replace(label=PERSON), behind]).boxes
    assert [box.label for box in both] == [PARCEL, PERSON]
    # In front of what stands behind, nothing is lost.
    (whole,) = _compose(place, [before._replace(depth=6.0), behind]).boxes
    assert (whole.x0, whole.x1) == (50, 70)


def test_hardly_visible_figures_have_no_box(place):
    assert _compose(place, [brick(20, 30, 5, -14, PARCEL)]).boxes
    assert not _compose(place, [brick(20, 30, 5, -16, PARCEL)]).boxes
    assert not _compose(place, [brick(20, 30, 5, -40, PARCEL)]).boxes
    assert _compose(place, [brick(6, 30, 5, 50, PARCEL)]).boxes
    assert not _compose(place, [brick(5, 30, 5, 50, PARCEL)]).boxes


def test_boxes_of_drawn_figures_surround_them():
    walk = Walkabout(3, 160, 120)
    empty = _compose(walk._place, [])
    seen = 0
    for t_s in range(0, 60, 5):
        scene = walk.at(t_s)
        changed = np.abs(scene.light - empty.light).max(axis=2) > 1e-4
        for box in scene.boxes:
            part = changed[int(box.y0) : int(np.ceil(box.y1)), int(box.x0) : int(np.ceil(box.x1))]
            assert all(edge.any() for edge in (part[0], part[-1], part[:, 0], part[:, -1]))
            assert part.mean() > 0.15
            seen += 1
    assert seen > 5


@pytest.mark.parametrize("seed", range(4))
def test_a_walkabout_goes_on(seed):
    walk, other = Walkabout(seed, 160, 120), Walkabout(seed, 160, 120)
    times = [0.0, 1.0, 7.5, 60.0, 3600.25, 1e7]
    ones = [walk.at(t_s) for t_s in times]
    for scene in ones:
        check(scene, 160, 120)
    assert list(map(digest, ones)) == [digest(other.at(t_s)) for t_s in reversed(times)][::-1]
    assert len(set(map(digest, ones))) > 3
    counts = [sum(box.label == PERSON for box in walk.at(t_s).boxes) for t_s in range(0, 120, 3)]
    assert np.mean(np.array(counts) > 0) > 0.3
    assert len(set(counts)) > 1


def test_walkabouts_differ():
    assert len({digest(Walkabout(seed, 160, 120).at(0)) for seed in range(4)}) == 4


@pytest.mark.parametrize(("seed", "slot"), [(0, 0), (2, 2), (8, 1), (5, 4), (0, 5), (6, 5)])
def test_figures_move_without_jumps(seed, slot):
    walk = Walkabout(seed, 160, 120)
    visit = next(filter(None, (walk._draw_visit(slot, turn, 24.0) for turn in range(9))))
    # Comes once, goes once, and is out of sight at both ends.
    grid = np.arange(0, 26, 0.1)
    there = [visit.at(walk._place, t_s) is not None for t_s in grid]
    assert there == sorted(there, reverse=True)
    last_s = grid[sum(there) - 1]
    assert any(_compose(walk._place, [visit.at(walk._place, t_s)]).boxes for t_s in np.arange(0, last_s, 0.5))
    for t_s in (0.0, last_s):
        assert not _compose(walk._place, [visit.at(walk._place, t_s)]).boxes
    step_s = 0.02
    assert visit.at(walk._place, 0.0).label == (CAR if slot == 5 else PERSON)
    fastest = 9.0 if slot == 5 else 4.0
    for t_s in np.arange(0, last_s - step_s, 0.07):
        one, next_ = visit.at(walk._place, t_s), visit.at(walk._place, t_s + step_s)
        scale = walk._place.camera.scale(one.depth)
        assert abs(next_.x - one.x) < fastest * step_s * scale + 2
        assert abs(next_.depth - one.depth) < fastest * step_s
        # No limb moves faster than a few metres a second.
        for was, is_ in zip(edges(one.patch), edges(next_.patch), strict=True):
            assert abs(was - is_) < 6 * step_s * scale + 3


def edges(patch):
    height, width = patch.cover.shape
    return patch.left, patch.top, patch.left + width, patch.top + height


@pytest.mark.parametrize("gesture", GESTURES)
def test_people_stand_on_the_ground_and_are_as_tall_as_they_are(gesture):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        looks = Person.draw(rng)
        phase, stride, view = rng.uniform(0, 6.3), rng.uniform(0, 1), rng.uniform(-3.1, 3.1)
        shapes = person(looks, Pose(view, phase, stride, GESTURES[gesture]))
        bounds = np.array([shape.bounds for shape in shapes])
        assert abs(bounds[:, 3].max()) < 0.06
        head = -bounds[:, 1].min()
        assert head > 0.93 * looks.stature
        if gesture in ("hang", "hip", "pocket"):
            assert head < 1.05 * looks.stature


def test_a_walkers_feet_do_not_slide():
    looks = Person.draw(np.random.default_rng(2))
    sideways = np.pi / 2
    ways = np.linspace(0, 3, 301)
    # The foot that stands is the lower of the two: as shares of the way, how much it moves.
    slides = []
    for one, next_ in itertools.pairwise(ways):
        feet = []
        for metres in (one, next_):
            legs = _Body(looks, Pose(sideways, looks.swing(metres), 1.0))
            feet.append([legs.leg(side)[0].a for side in (0, 1)])
        lower = int(feet[0][1][1] > feet[0][0][1])
        slides.append((feet[1][lower][0] - feet[0][lower][0] + (next_ - one)) / (next_ - one))
    assert np.median(np.abs(slides)) < 0.25


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        (Ellipse((0.1, 0.2), 0.5, 0.25, (1, 1, 1)), np.pi * 0.5 * 0.25),
        (Polygon(quad(-0.5, -0.4, 0.3, 0.2), (1, 1, 1)), 0.48),
        (Capsule((0, 0), (1, 0), 0.1, 0.1, (1, 1, 1)), 0.2 + np.pi * 0.01),
        (Capsule((0, 0), (1, 0.5), 0.001, 0.001, (1, 1, 1)), 0.002 * np.hypot(1, 0.5)),
    ],
)
def test_shapes_cover_their_area(shape, area):
    patch = render([shape], 100, NOON)
    assert patch.cover.sum() / 100**2 == pytest.approx(area, rel=0.08)
    assert patch.cover[[0, -1]].max() < 1e-5
    assert patch.cover[:, [0, -1]].max() < 1e-5


def test_a_shape_is_bright_where_it_faces_the_lamp():
    from_left = Lighting((-0.8, 0.0, 0.6), (1.0, 1.0, 1.0), (0.1, 0.2, 0.3), (1.0, -0.1))
    patch = render([Ellipse((0, 0), 1, 1, (0.5, 0.5, 0.5))], 50, from_left)
    middle = patch.light[:, patch.cover.shape[0] // 2]
    assert middle[0, 20] > 2 * middle[0, -20]
    # What the lamp does not reach has the colour of the light all around.
    assert middle[:, -4] == pytest.approx([0.05, 0.1, 0.15], rel=1e-4)
