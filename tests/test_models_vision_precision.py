"""Average precision: what is found counts, what is not or not well does not, and what is not there is not averaged."""

import math

import numpy as np
import pytest
import torch

from models.vision.detector import Detections
from models.vision.precision import average_precision, best_threshold

BOXES = np.array([[10, 10, 50, 60], [80, 20, 120, 90], [5, 70, 45, 110]], dtype=np.float32)
LABELS = np.array([0, 1, 0])
TRUTHS = [(BOXES, LABELS), (BOXES[:1], LABELS[:1]), (np.zeros((0, 4), np.float32), np.zeros(0, np.int64))]


def found(boxes: np.ndarray, labels: object, scores: object = None) -> Detections:
    scores = np.linspace(0.9, 0.5, len(boxes)) if scores is None else scores
    return Detections(
        torch.from_numpy(np.asarray(boxes, dtype=np.float32)).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64).reshape(-1),
        torch.tensor(scores, dtype=torch.float32).reshape(-1),
    )


def moved(by: float) -> list[Detections]:
    return [found(boxes + np.float32(by), labels) for boxes, labels in TRUTHS]


NOTHING = found(np.zeros((0, 4)), [])


def test_perfect_detections():
    precision = average_precision(TRUTHS, moved(0.0), 2)
    assert precision.ap == pytest.approx(1)
    assert precision.ap50 == pytest.approx(1)
    assert precision.ap50_by_class == pytest.approx((1, 1))


def test_boxes_that_are_a_little_off_count_where_little_is_asked():
    """Four of forty and of fifty or seventy: an IoU of 0.7 or so."""
    precision = average_precision(TRUTHS, moved(4.0), 2)
    assert precision.ap50 == pytest.approx(1)
    assert 0.3 < precision.ap < 0.7


def test_boxes_that_are_elsewhere_count_nowhere():
    precision = average_precision(TRUTHS, moved(300.0), 2)
    assert (precision.ap, precision.ap50, precision.ap50_by_class) == (0.0, 0.0, (0.0, 0.0))


@pytest.mark.parametrize(("right", "score"), [(3, 1.0), (4, 0.0)])
def test_half_of_both_together_must_be_shared(right, score):
    """Ten by ten, three to the right: 7 of 13; four: 6 of 14."""
    box = np.array([[10, 10, 20, 20]], dtype=np.float32)
    beside = box + np.array([right, 0, right, 0], dtype=np.float32)
    assert average_precision([(box, LABELS[:1])], [found(beside, [0])], 1).ap50 == pytest.approx(score)


def test_nothing_found():
    precision = average_precision(TRUTHS, [NOTHING] * 3, 2)
    assert (precision.ap, precision.ap50, precision.ap50_by_class) == (0.0, 0.0, (0.0, 0.0))


@pytest.mark.parametrize("some", [True, False])
def test_a_class_that_is_not_there_is_not_averaged(some):
    precision = average_precision(TRUTHS, moved(0.0) if some else [NOTHING] * 3, 4)
    assert [math.isnan(score) for score in precision.ap50_by_class] == [False, False, True, True]
    assert (precision.ap, precision.ap50) == pytest.approx((1, 1) if some else (0, 0))


def test_another_class_or_another_image_is_wrong():
    swapped = [found(boxes, 1 - labels) for boxes, labels in TRUTHS]
    assert average_precision(TRUTHS, swapped, 2).ap50 == 0.0
    one_on = [NOTHING, *moved(0.0)[:2]]
    assert average_precision(TRUTHS, one_on, 2).ap50 < 0.5


def test_half_of_the_classes_found_is_half():
    only_first = [found(boxes[labels == 0], labels[labels == 0]) for boxes, labels in TRUTHS]
    precision = average_precision(TRUTHS, only_first, 2)
    assert precision.ap50_by_class == pytest.approx((1, 0))
    assert precision.ap50 == pytest.approx(0.5)


def test_false_alarms_cost_only_where_they_are_surer():
    def with_alarm(score: float) -> float:
        alarm = found(np.array([[200, 200, 240, 240]]), [0], [score])
        return average_precision(TRUTHS, [*moved(0.0)[:2], alarm], 2).ap50_by_class[0]

    assert with_alarm(0.1) == pytest.approx(1)
    assert with_alarm(0.95) < 0.8


def test_finding_it_twice_is_finding_it_once():
    twice = [found(np.repeat(boxes, 2, axis=0), np.repeat(labels, 2)) for boxes, labels in TRUTHS]
    assert 0.8 < average_precision(TRUTHS, twice, 2).ap50 < 0.99


def test_missing_one_of_three_is_two_thirds():
    """The COCO rule reads precision at 101 recalls; two of three objects reach 0.66 of them: 67."""
    taken = [found(BOXES[:2], LABELS[:2]), *moved(0.0)[1:]]
    assert average_precision(TRUTHS, taken, 2).ap50_by_class[0] == pytest.approx(67 / 101)


def test_it_says_nothing(capsys):
    average_precision(TRUTHS, moved(0.0), 2)
    assert capsys.readouterr() == ("", "")


def by_hand(truths: list, detections: list[Detections], threshold: float) -> float:
    """F1 of what is at least as sure, in plain Python."""
    hits = alarms = 0
    for (boxes, labels), one in zip(truths, detections, strict=True):
        free = list(range(len(boxes)))
        for box, label, score in zip(one.boxes.tolist(), one.labels.tolist(), one.scores.tolist(), strict=True):
            if score < threshold:
                continue
            overlap = {}
            for k in free:
                left, top, right, bottom = boxes[k].tolist()
                shared = max(0, min(right, box[2]) - max(left, box[0])) * max(0, min(bottom, box[3]) - max(top, box[1]))
                union = (right - left) * (bottom - top) + (box[2] - box[0]) * (box[3] - box[1]) - shared
                overlap[k] = shared / union if labels[k] == label else 0.0
            best = max(overlap, key=lambda k: overlap[k], default=None)
            if best is not None and overlap[best] >= 0.5:
                hits += 1
                free.remove(best)
            else:
                alarms += 1
    return 2 * hits / (hits + alarms + sum(len(labels) for _, labels in truths))


@pytest.mark.parametrize("seed", range(6))
def test_the_threshold_is_that_of_the_best_f1(seed):
    rng = np.random.default_rng(seed)
    detections = []
    for boxes, labels in TRUTHS:
        elsewhere = rng.uniform([0, 0, 61, 61], [60, 60, 120, 120], (4, 4))
        near = np.concatenate([boxes + rng.normal(0, 4, boxes.shape), boxes + rng.normal(0, 2, boxes.shape), elsewhere])
        kinds = [*labels.tolist(), *labels.tolist(), *rng.integers(0, 2, 4).tolist()]
        scores = np.concatenate([rng.uniform(0.3, 1, 2 * len(boxes)), rng.uniform(0, 0.8, 4)])
        order = np.argsort(-scores)
        detections.append(found(near[order], np.array(kinds)[order], scores[order]))
    best = best_threshold(TRUTHS, detections)
    every = sorted({score for one in detections for score in one.scores.tolist()})
    assert best in every
    assert by_hand(TRUTHS, detections, best) == pytest.approx(max(by_hand(TRUTHS, detections, one) for one in every))


def test_the_threshold_leaves_out_what_is_wrong():
    alarm = found(np.array([[200, 200, 240, 240]]), [0], [0.3])
    assert best_threshold(TRUTHS, [*moved(0.0)[:2], alarm]) == pytest.approx(0.5)
    assert 0 < best_threshold(TRUTHS, [NOTHING] * 3) < 1
