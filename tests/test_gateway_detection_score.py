"""The live score agrees with pycocotools."""

import numpy as np
import pytest
import torch

from gateway.detection_score import ROLLING_FRAMES, LiveDetectionScore
from models.vision.detector import Detections
from models.vision.precision import average_precision
from protocol.messages import FoundBox, TrueBox

NAMES = ("person", "car")


def random_frame(rng):
    truth = []
    for _ in range(rng.integers(0, 5)):
        x, y = rng.uniform(0, 200, 2)
        w, h = rng.uniform(10, 60, 2)
        truth.append((int(rng.integers(2)), (x, y, x + w, y + h)))
    found = []
    for label, (x0, y0, x1, y1) in truth:
        if rng.random() < 0.8:
            jitter = rng.uniform(-6, 6, 4)
            found.append((label, (max(0, x0 + jitter[0]), max(0, y0 + jitter[1]), x1 + jitter[2], y1 + jitter[3])))
    for _ in range(rng.integers(0, 3)):
        x, y = rng.uniform(0, 200, 2)
        found.append((int(rng.integers(2)), (x, y, x + 20, y + 20)))
    return truth, [(label, box, float(rng.random())) for label, box in found]


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_that_of_coco(seed):
    rng = np.random.default_rng(seed)
    frames = [random_frame(rng) for _ in range(40)]
    live = LiveDetectionScore("m@1", NAMES)
    truths, detections = [], []
    for truth, found in frames:
        live.update(
            [TrueBox(label=NAMES[label], box=box) for label, box in truth],
            [FoundBox(label=NAMES[label], box=box, score=score) for label, box, score in found],
        )
        truths.append(
            (
                np.array([box for _, box in truth], dtype=np.float32).reshape(-1, 4),
                np.array([label for label, _ in truth], dtype=np.int64),
            )
        )
        order = sorted(found, key=lambda one: -one[2])
        detections.append(
            Detections(
                torch.tensor([box for _, box, _ in order]).reshape(-1, 4),
                torch.tensor([label for label, _, _ in order], dtype=torch.int64),
                torch.tensor([score for _, _, score in order]),
            )
        )  # fmt: skip
    wanted = average_precision(truths, detections, classes=2)
    assert live.read().ap50 == pytest.approx(wanted.ap50, abs=1e-6)


def test_without_a_true_box_there_is_no_score():
    live = LiveDetectionScore("m@1", NAMES)
    assert (live.read().ap50, live.read().recall) == (None, None)
    live.update([], [FoundBox(label="car", box=(0, 0, 5, 5), score=0.9)])
    assert (live.read().frames, live.read().ap50, live.read().recall) == (1, None, None)


def test_recall_counts_true_boxes_once():
    live = LiveDetectionScore("m@1", NAMES)
    truth = [TrueBox(label="car", box=(0, 0, 10, 10)), TrueBox(label="car", box=(50, 50, 60, 60))]
    twice = [FoundBox(label="car", box=(0, 0, 10, 10), score=s) for s in (0.9, 0.8)]
    live.update(truth, twice)
    assert live.read().recall == 0.5


def test_the_score_is_over_the_last_frames():
    live = LiveDetectionScore("m@1", NAMES)
    truth = [TrueBox(label="car", box=(0, 0, 10, 10))]
    live.update(truth, [])
    for _ in range(ROLLING_FRAMES):
        live.update(truth, [FoundBox(label="car", box=(0, 0, 10, 10), score=0.9)])
    assert live.read().recall == 1.0
    assert live.read().frames == ROLLING_FRAMES + 1


def test_what_the_detector_does_not_know_has_no_part_in_its_score():
    live = LiveDetectionScore("m@1", NAMES)
    known, found = TrueBox(label="car", box=(0, 0, 10, 10)), FoundBox(label="car", box=(0, 0, 10, 10), score=0.9)
    live.update([known, *(TrueBox(label=f"thing {n}", box=(0, 0, 5, 5)) for n in range(50))], [found])
    assert (live.read().ap50, live.read().recall) == (1.0, 1.0)
