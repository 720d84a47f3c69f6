"""Shots: the same asked twice is the same, boxes go where the scene goes, and light does what light does."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.vision.pictures import Picture
from models.vision.shots import (
    DUSK,
    HEIGHT,
    OVERSAMPLED,
    SENSOR,
    WIDTH,
    Shot,
    Shots,
    Variation,
    View,
    brightness,
    view_of,
)
from quantization.raw import ORDINARY_LIGHT, CameraSensor, Cfa, RawFrame, to_planes

torch.set_num_threads(1)


def view(
    box: tuple[float, float, float, float] = (30, 24, 60, 40), size: tuple[int, int] = (96, 72), name: str = "v"
) -> View:
    """A bright rectangle in the dark, already light."""
    linear = np.zeros((size[1], size[0], 3), dtype=np.float32)
    left, top, right, bottom = map(int, box)
    linear[top:bottom, left:right] = 0.8
    return View(name, linear, np.array([box], dtype=np.float32), np.array([2]), None)


VARIED = Variation(exposures=(0.5, 1.2), dusk_share=0.25, zooms=(0.7, 1.4), shift=0.25)


def shots(*views: View, variation: Variation = VARIED, **more: float) -> Shots:
    return Shots(
        views or [view()], variation=variation, **({"gain": 0.9, "seed": 4, "width": 128, "height": 96} | more)
    )


def same(a: Shot, b: Shot) -> bool:
    return np.array_equal(a.frame.counts, b.frame.counts) and np.array_equal(a.boxes, b.boxes)


def bright_box(shot: Shot) -> list[int]:
    """Where the light is: rows and columns that are, in their brightest part, above half of the brightest."""
    light = shot.frame.counts.astype(float)
    sides = []
    for axis in (0, 1):
        profile = np.sort(light, axis=axis)
        profile = profile[-8:].mean(axis=0) if axis == 0 else profile[:, -8:].mean(axis=1)
        lit = np.flatnonzero(profile > np.quantile(profile, 0.98) / 2)
        sides.append((lit[0], lit[-1] + 1))
    return [sides[0][0], sides[1][0], sides[0][1], sides[1][1]]


@pytest.mark.parametrize(
    ("box", "size"),
    [
        ((30, 24, 60, 40), (96, 72)),
        ((20, 20, 44, 50), (96, 72)),
        ((60, 40, 180, 100), (240, 180)),
        ((10, 30, 40, 100), (60, 130)),
        ((50, 10, 90, 40), (200, 50)),
    ],
)
def test_boxes_go_where_the_scene_goes(box, size):
    """Zoomed, shifted, flipped: the photosites that see the rectangle are those within its box."""
    taken = shots(view(box, size))
    seen, compared = [], 0
    for epoch in range(40):
        shot = taken.varied(0, epoch)
        assert shot.frame.counts.shape == (96, 128)
        if not len(shot.boxes):
            continue
        assert shot.labels.tolist() == [2]
        left, top, right, bottom = shot.boxes[0]
        assert 0 <= left < right <= 128
        assert 0 <= top < bottom <= 96
        if right - left > 10 and bottom - top > 10:
            assert shot.boxes[0] == pytest.approx(bright_box(shot), abs=2.01)
            compared += 1
        seen.append(shot.boxes[0])
    assert compared > 20
    assert np.ptp(np.array(seen), axis=0).min() > 10, "windows differ"


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("zoom", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.1, -0.05)])
def test_a_window_by_hand(flip, zoom, offset):
    """Two photosites to each of the view's pixels at zoom 1; from the window's centre."""
    box = np.array([24, 18, 36, 28])
    taken = shots(view(tuple(box), (64, 48)))
    shot = taken._shoot(
        taken.views[0], None, 1.0, np.random.default_rng(0), zoom=zoom, offset=np.array(offset), flip=flip
    )
    centre = np.array([64 * (0.5 + offset[0]), 48 * (0.5 + offset[1])])
    corners = (box.reshape(2, 2) - centre) * 2 * zoom * [-1 if flip else 1, 1] + [64, 48]
    expected = [*corners.min(axis=0), *corners.max(axis=0)]
    assert shot.boxes[0] == pytest.approx(expected, abs=1e-3)
    assert bright_box(shot) == pytest.approx(expected, abs=1.5)


def test_a_whole_view_fills_the_mosaic_and_is_centred():
    tall = shots(view((0, 0, 30, 60), (30, 60))).plain(0)
    assert tall.boxes.tolist() == [[40, 0, 88, 96]]
    wide = shots(view((0, 0, 60, 30), (60, 30))).plain(0)
    assert wide.boxes.tolist() == [[0, 16, 128, 80]]
    counts = wide.frame.counts
    assert counts[:14].mean() < 0.1 * counts[20:76].mean(), "around the view is no light"


def test_the_views_edges_are_where_they_are():
    """Four photosites to a pixel: half a pixel too much at the edge would be two of them."""
    shot = shots(view((2, 2, 30, 22), (32, 24))).plain(0)
    assert shot.boxes[0] == pytest.approx([8, 8, 120, 88])
    assert bright_box(shot) == pytest.approx([8, 8, 120, 88], abs=1.01)


@pytest.mark.parametrize(("left", "kept"), [(-0.9, False), (-0.1, True)])
def test_objects_leave_with_the_window(left, kept):
    """The box begins at the view's left edge; the window at another share of the box's width."""
    taken = shots(view((0, 10, 24, 40), (96, 72)))
    offset = np.array([-left * 24 / 96, 0.0])
    shot = taken._shoot(taken.views[0], None, 1.0, np.random.default_rng(0), zoom=1.0, offset=offset, flip=False)
    assert len(shot.boxes) == len(shot.labels) == kept
    if kept:
        assert shot.boxes[0] == pytest.approx([0, 10 * 4 / 3, 0.9 * 32, 40 * 4 / 3], abs=1e-3)


def test_views_without_objects():
    empty = replace(view(), boxes=np.zeros((0, 4), dtype=np.float32), labels=np.zeros(0, dtype=np.int64))
    for shot in (shots(empty).plain(0), shots(empty).varied(0, 0)):
        assert shot.boxes.shape == (0, 4)
        assert shot.boxes.dtype == np.float32
        assert shot.labels.shape == (0,)


def test_the_same_is_the_same_and_another_is_another():
    views = [view(), view((30, 24, 60, 40), name="w")]
    first, again = shots(*views), shots(*views)
    for index in (0, 1):
        for epoch in (0, 3):
            assert same(first.varied(index, epoch), again.varied(index, epoch))
        assert same(first.plain(index), again.plain(index))
        assert same(first.plain(index), first.plain(index))
    different = [
        first.varied(0, 0), first.varied(0, 1), first.varied(1, 0), first.plain(0), first.plain(1),
        shots(*views, seed=5).varied(0, 0), shots(*views, seed=5).plain(0),
    ]  # fmt: skip
    assert not any(same(a, b) for a, b in itertools.combinations(different, 2))


def test_light_scales_what_the_sensor_sees():
    scene = View("v", np.full((48, 64, 3), 0.5, np.float32), np.zeros((0, 4), np.float32), np.zeros(0, int), None)
    taken = shots(scene)
    means = {light: taken.plain(0, light).frame.counts[10:-10, 10:-10].mean() for light in (1.0, 0.5, 0.25, 0.1)}
    for light, mean in means.items():
        assert mean == pytest.approx(light * 0.9 * 0.5 * 4095, rel=0.02)
    assert taken.plain(0, 0.0).frame.counts.mean() < 0.01 * 4095
    assert taken.plain(0, 100.0).frame.counts[10:-10, 10:-10].min() == SENSOR.white
    assert shots(scene, gain=0.3).plain(0).frame.counts[10:-10, 10:-10].mean() == pytest.approx(615, rel=0.02)


STILL = Variation(exposures=(1.0, 1.0), dusk_share=0.0, zooms=(1.0, 1.0), shift=0.0)


def test_training_sees_day_and_dusk():
    scene = View("v", np.full((72, 96, 3), 0.2, np.float32), np.zeros((0, 4), np.float32), np.zeros(0, int), None)

    def exposures(variation: Variation) -> np.ndarray:
        taken = shots(scene, gain=1.0, width=32, height=24, variation=variation)
        return np.array([taken.varied(0, epoch).planes.mean() / 0.2 for epoch in range(150)])

    day = exposures(replace(STILL, exposures=(0.7, 1.4)))
    assert 0.65 < day.min() < 0.75
    assert 1.3 < day.max() < 1.45
    assert np.median(day) == pytest.approx(np.sqrt(0.7 * 1.4), rel=0.12), "even on a logarithmic scale"
    dusk = exposures(replace(STILL, dusk_share=1.0))
    assert 0.7 * DUSK[0] < dusk.min() < 1.3 * DUSK[0]
    assert 0.9 * DUSK[1] < dusk.max() < 1.1 * DUSK[1]
    some = exposures(replace(STILL, dusk_share=0.25))
    assert np.mean(some < 0.8) == pytest.approx(0.25, abs=0.1)


def test_without_variation_training_sees_the_whole_view_and_its_mirror():
    taken = shots(view(), variation=STILL)
    left, top, right, bottom = taken.plain(0).boxes[0].tolist()
    seen = {tuple(taken.varied(0, epoch).boxes[0].tolist()) for epoch in range(12)}
    assert seen == {(left, top, right, bottom), (128 - right, top, 128 - left, bottom)}


@pytest.mark.parametrize("zoom", [0.6, 1.3])
def test_zoom_and_shift_are_those_of_the_variation(zoom):
    one = shots(view(), variation=replace(STILL, zooms=(zoom, zoom), shift=0.1))
    whole = one.plain(0).boxes[0]
    middles = []
    for epoch in range(60):
        left, top, right, bottom = one.varied(0, epoch).boxes[0].tolist()
        assert right - left == pytest.approx(zoom * (whole[2] - whole[0]), rel=1e-4)
        assert bottom - top == pytest.approx(zoom * (whole[3] - whole[1]), rel=1e-4)
        middles.append((top + bottom) / 2)
    # A tenth of the scene's 96 photosites to both sides of where the zoom alone takes it.
    shifted = np.array(middles) - (48 + zoom * ((whole[1] + whole[3]) / 2 - 48))
    assert 8.0 * zoom < np.abs(shifted).max() <= 9.6 * zoom + 1e-3
    assert shifted.min() < 0 < shifted.max()


def test_planes_are_light_above_each_positions_black():
    counts = np.array([[110, 220], [330, 440]], dtype=np.uint16).repeat(2, axis=0).repeat(2, axis=1)[::2, ::2]
    sensor = CameraSensor("p", Cfa.GBRG, 12, (10.0, 20.0, 30.0, 40.0), 1000.0)
    planes = Shot(RawFrame(counts, sensor), np.zeros((0, 4), np.float32), np.zeros(0, int)).planes
    assert planes.dtype == np.float64
    # Red, green beside it, green beside blue, blue: from the positions 2, 3, 0, 1.
    assert planes.ravel() == pytest.approx([300 / 970, 400 / 960, 100 / 990, 200 / 980])
    taken = shots().plain(0)
    assert np.array_equal(taken.planes, to_planes(taken.frame.counts, Cfa.RGGB) / 4095)


def picture(width: int, height: int, name: str = "a") -> Picture:
    srgb = np.full((height, width, 3), 40, dtype=np.uint8)
    srgb[height // 4 : height // 2, width // 4 : width // 2] = 250
    box = np.array([[width // 4, height // 4, width // 2, height // 2]], dtype=np.float32)
    return Picture(name, "train", srgb, box, np.array([1]))


def test_large_pictures_are_made_smaller_with_their_boxes():
    made = view_of(picture(1200, 900), 0)
    width, height = round(WIDTH * OVERSAMPLED), round(HEIGHT * OVERSAMPLED)
    assert made.linear.shape == (height, width, 3)
    assert made.linear.dtype == np.float32
    assert made.boxes[0] == pytest.approx([width / 4, height / 4, width / 2, height / 2])
    assert made.labels.tolist() == [1]
    left, top, right, bottom = made.boxes[0].astype(int)
    assert made.linear[top + 3 : bottom - 3, left + 3 : right - 3].min() > 0.8
    assert made.linear[: top - 3].max() < 0.1
    tall = view_of(picture(300, 2000), 0)
    assert tall.linear.shape[0] == height
    assert tall.linear.shape[1] == round(300 * height / 2000)


def test_small_pictures_stay_as_they_are():
    made = view_of(picture(100, 80), 0)
    assert made.linear.shape == (80, 100, 3)
    assert made.boxes.tolist() == [[25, 20, 50, 40]]
    assert view_of(picture(1, 1), 0).linear.shape == (2, 2, 3)


def test_a_pictures_camera_is_its_own():
    def matrix(name: str, seed: int) -> list[list[float]]:
        return view_of(picture(20, 20, name), seed).camera.matrix.tolist()

    assert matrix("a", 0) == matrix("a", 0)
    assert matrix("a", 0) != matrix("b", 0)
    assert matrix("a", 0) != matrix("a", 1)


def test_the_gain_brings_pictures_to_the_light_of_real_raw():
    views = [view_of(picture(200 + 10 * k, 150, str(k)), 0) for k in range(6)]
    gain = brightness(views)
    light = np.mean([one.camera.undo(one.linear).mean() for one in views])
    assert gain * light == pytest.approx(ORDINARY_LIGHT, rel=1e-4)
    assert brightness([replace(one, linear=one.linear / 2, camera=None) for one in views]) == pytest.approx(
        2 * brightness([replace(one, camera=None) for one in views]), rel=1e-4
    )


def test_what_tells_shots_apart():
    one = shots().describe()
    assert one == shots().describe()
    others = [shots(seed=5), shots(gain=0.8), shots(width=64), shots(height=64), shots(view((30, 24, 60, 41)))]
    others += [shots(variation=replace(VARIED, **{name: value})) for name, value in vars(STILL).items()]
    assert all(other.describe() != one for other in others)
