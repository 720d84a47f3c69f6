"""What previews show of a frame and of what was found in it."""

import io

import numpy as np
import pytest
from camera_stack import image_codebook
from PIL import Image

from gateway.preview import LONGEST_SIDE, render
from protocol.messages import FoundBox
from quantization.raw import Cfa

CLASSES = ("person", "car", "parcel")
BOOK = image_codebook()


def shown(boxes: list[FoundBox], *, width: int = 160, height: int = 120, sensor: int = 1) -> np.ndarray:
    """Pixels of the preview of a grey frame; the sensor's sides are ``sensor`` times the frame's."""
    codes = np.full((height, width), 8, dtype=np.uint8)
    preview = render(codes, Cfa.RGGB, BOOK, boxes, classes=CLASSES, size=(sensor * width, sensor * height))
    return np.asarray(Image.open(io.BytesIO(preview.jpeg))).astype(float)


def found(label: str, *box: float) -> FoundBox:
    return FoundBox(label=label, score=0.5, box=box)


PARCEL = found("parcel", 20, 60, 60, 100)


@pytest.mark.parametrize("others", [[], [found("car", 90, 60, 130, 100)], [found("person", 90, 60, 130, 100)] * 2])
def test_a_class_has_one_colour_whatever_else_is_found(others):
    alone, together = shown([PARCEL]), shown([*others, PARCEL])
    edge = (slice(70, 90), 20)  # of the box's left side
    assert np.abs(alone[edge] - together[edge]).max() < 30
    assert np.ptp(alone[edge].mean(axis=0)) > 60, "it is no grey"


def test_classes_differ_in_colour():
    edges = [shown([found(label, 20, 60, 60, 100)])[70:90, 20].mean(axis=0) for label in CLASSES]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(edges[first] - edges[second]).max() > 60


def test_boxes_are_in_photosites_of_the_sensor():
    whole, binned = shown([PARCEL]), shown([found("parcel", 40, 120, 120, 200)], sensor=2)
    np.testing.assert_array_equal(whole, binned)


def test_a_large_frame_is_shown_smaller():
    pixels = shown([], width=1280, height=960)
    assert pixels.shape == (480, LONGEST_SIDE, 3)
