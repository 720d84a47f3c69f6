"""The way back from sRGB: what the forward curve makes of the light is the picture, and white stays white."""

import numpy as np
import pytest

from models.vision.unprocess import CAMERAS, TO_XYZ, Camera, linearised

LEVELS = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)


def cameras(n: int = 200) -> list[Camera]:
    rng = np.random.default_rng(0)
    return [Camera.draw(rng) for _ in range(n)]


def grey(value: float) -> np.ndarray:
    return np.full((2, 3, 3), value, dtype=np.float32)


def test_linear_light_becomes_the_picture_again():
    light = linearised(LEVELS)
    assert light.dtype == np.float32
    assert light.shape == (1, 256, 3)
    encoded = light.astype(float) ** (1 / 2.2)
    toned = 3 * encoded**2 - 2 * encoded**3
    assert np.abs(toned * 255 - LEVELS).max() < 0.01
    assert (np.diff(light[0, :, 1]) > 0).all()


def test_black_is_dark_and_white_is_full():
    light = linearised(np.array([[[0, 128, 255]]], dtype=np.uint8))[0, 0]
    assert light[0] < 1e-6
    assert light[1] == pytest.approx(0.5**2.2, abs=0.005)
    assert light[2] == pytest.approx(1.0, abs=1e-6)


def test_every_camera_sees_white_as_white():
    for camera in cameras():
        assert camera.matrix.sum(axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
        assert camera.matrix.diagonal().min() > 0.5, "each of its colours is above all its own"
    assert (CAMERAS @ TO_XYZ).sum(axis=2).min() > 0, "what rows are divided by"


def test_cameras_differ_as_real_ones_do():
    drawn = cameras()
    red, green, blue = np.array([camera.gains for camera in drawn]).T
    assert ((red / green > 1.899) & (red / green < 2.401)).all()
    assert ((blue / green > 1.499) & (blue / green < 1.901)).all()
    assert np.ptp(red / green) > 0.4
    assert np.ptp(blue / green) > 0.3
    assert (1 / green).mean() == pytest.approx(0.8, abs=0.03)
    assert (1 / green).std() == pytest.approx(0.1, rel=0.25)
    assert np.array([camera.matrix for camera in drawn]).std(axis=0).min() > 0.001
    again = cameras()
    assert all(np.array_equal(a.matrix, b.matrix) for a, b in zip(drawn, again, strict=True))


def test_gains_are_taken_off_mid_greys():
    for camera in cameras(20):
        for value in (0.0, 0.1, 0.5, 0.89):
            light = camera.undo(grey(value))
            assert light.dtype == np.float32
            assert light.shape == (2, 3, 3)
            assert light[1, 2] == pytest.approx(value / camera.gains, rel=1e-4, abs=1e-7)


def test_white_stays_white_and_highlights_rise_to_it():
    for camera in cameras(50):
        assert np.minimum(camera.undo(grey(1.0))[0, 0], 1) == pytest.approx([1, 1, 1], abs=1e-4)
        if camera.gains.min() < 1:  # green that was darkened comes out above full scale, and is cut by the ADC
            continue
        rising = np.array([camera.undo(grey(value))[0, 0] for value in np.linspace(0, 1, 101)])
        assert (np.diff(rising, axis=0) > 0).all()


def test_colours_go_through_the_matrix_and_never_below_nothing():
    camera = Camera(
        np.array([[0.8, 0.3, -0.1], [0.1, 0.9, 0.0], [-0.2, 0.2, 1.0]], dtype=np.float32),
        np.array([2.0, 1.0, 1.5], dtype=np.float32),
    )
    linear = np.array([[[0.2, 0.4, 0.6], [0.9, 0.0, 0.0], [0.0, 0.0, 0.5]]], dtype=np.float32)
    expected = [[0.22 / 2, 0.38, 0.64 / 1.5], [0.72 / 2, 0.09, 0.0], [0.0, 0.0, 0.5 / 1.5]]
    assert camera.undo(linear)[0] == pytest.approx(np.array(expected), abs=1e-6)


def test_a_bright_colour_is_no_highlight():
    """Only what is bright in the mean keeps its light."""
    camera = Camera(np.eye(3, dtype=np.float32), np.array([2.0, 1.0, 1.5], dtype=np.float32))
    assert camera.undo(np.array([[[1.0, 1.0, 0.0]]], dtype=np.float32))[0, 0].tolist() == [0.5, 1.0, 0.0]
