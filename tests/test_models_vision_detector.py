"""The detector: any size, any filter array, any light gives finite maps, and what they say is what is decoded."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.vision.detector import (
    COARSEST,
    MAX_OBJECTS,
    STRIDE,
    Detector,
    DetectorConfig,
    Maps,
    cell_middles,
    decode,
    overlaps,
    padded,
    suppress,
)
from quantization.errors import BundleError
from quantization.exposure import Noise, expose
from quantization.raw import CameraSensor, Cfa, to_planes

torch.set_num_threads(1)

TINY = DetectorConfig(classes=2, widths=(8, 8, 12, 16), blocks=(1, 1, 1, 1), head=8)


def tiny(seed: int = 0) -> Detector:
    """Untrained, but with outputs that depend on what is seen."""
    torch.manual_seed(seed)
    detector = Detector(TINY)
    with torch.no_grad():
        for head in (detector.centre_head, detector.box_head):
            head[1].weight.mul_(100)
    return detector.eval()


def silent(classes: int = 2, height: int = 6, width: int = 8) -> Maps:
    """Maps that say: nothing here. Boxes of one cell, which would fit."""
    shape = (1, classes, height, width)
    return Maps(torch.full(shape, -9.0), torch.full((1, 4, height, width), 4.0), torch.full((1, 1, height, width), 9.0))


CORNERS = st.tuples(*[st.integers(0, 12)] * 4)


def exact_iou(a: tuple[int, ...], b: tuple[int, ...]) -> Fraction:
    def area(box: tuple[int, ...]) -> int:
        return max(0, box[2] - box[0]) * max(0, box[3] - box[1])

    shared = area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    union = area(a) + area(b) - shared
    return Fraction(shared, union) if union else Fraction(0)


def box_of(corners: tuple[int, ...]) -> tuple[int, ...]:
    x, y = sorted(corners[::2]), sorted(corners[1::2])
    return x[0], y[0], x[1], y[1]


@given(st.lists(CORNERS.map(box_of), max_size=8), st.lists(CORNERS.map(box_of), max_size=8))
@settings(deadline=None)
def test_overlaps_are_those_of_whole_numbers(first, second):
    found = overlaps(torch.tensor(first).reshape(-1, 4).float(), torch.tensor(second).reshape(-1, 4).float())
    assert found.shape == (len(first), len(second))
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            assert found[i, j].item() == pytest.approx(float(exact_iou(a, b)), abs=1e-6)


@given(
    st.lists(st.tuples(CORNERS.map(box_of), st.integers(0, 1)), max_size=40),
    st.sampled_from([Fraction(0), Fraction(1, 4), Fraction(1, 2), Fraction(3, 4)]),
)
@settings(deadline=None)
def test_suppression_is_the_greedy_one(objects, overlap):
    kept: list[int] = []
    for index, (box, label) in enumerate(objects):
        if all(objects[k][1] != label or exact_iou(objects[k][0], box) <= overlap for k in kept):
            kept.append(index)
    boxes = torch.tensor([box for box, _ in objects]).reshape(-1, 4).float()
    labels = torch.tensor([label for _, label in objects], dtype=torch.int64)
    assert suppress(boxes, labels, float(overlap)).nonzero()[:, 0].tolist() == kept


def test_a_chain_of_boxes_is_settled_to_its_end():
    """Each overlaps the next: every decision depends on the one before."""
    left = torch.arange(100.0) * 4
    boxes = torch.stack([left, torch.zeros(100), left + 10, torch.ones(100)], dim=1)
    assert suppress(boxes, torch.zeros(100, dtype=torch.int64), 0.3).tolist() == [True, False] * 50


def test_a_planted_peak_is_decoded_where_it_is():
    maps = silent()
    maps.centres[0, 1, 2, 5] = 8.0
    maps.sides[0, :, 2, 5] = torch.tensor([10.0, 7.0, 3.0, 20.0])
    (found,) = decode(maps, (48, 64))
    # The cell's middle is at 44, 20.
    assert found.boxes.tolist() == [[34.0, 13.0, 47.0, 40.0]]
    assert found.labels.tolist() == [1]
    assert found.scores.item() == pytest.approx((torch.tensor([8.0, 9.0]).sigmoid().prod().sqrt()).item())


def test_a_score_weighs_how_well_the_box_fits():
    maps = silent()
    for column, quality in ((1, 3.0), (6, -1.0)):
        maps.centres[0, 0, 3, column] = 2.0
        maps.quality[0, 0, 3, column] = quality
    (found,) = decode(maps, (48, 64))
    centre = 1 / (1 + np.exp(-2.0))
    expected = [np.sqrt(centre / (1 + np.exp(-quality))) for quality in (3.0, -1.0)]
    assert found.scores.tolist() == pytest.approx(expected)
    assert found.boxes[:, 0].tolist() == [8.0, 48.0]


def test_of_neighbouring_cells_only_the_peak_is_an_object():
    maps = silent(classes=1)
    maps.centres[0, 0, 1:4, 1:4] = 1.0
    maps.centres[0, 0, 2, 2] = 2.0
    maps.centres[0, 0, 2, 6] = 0.5
    (found,) = decode(maps, (48, 64))
    assert found.boxes.tolist() == [[16, 16, 24, 24], [48, 16, 56, 24]]
    assert found.scores[0] > found.scores[1]


def test_boxes_of_one_class_suppress_each_other_and_those_of_two_do_not():
    maps = silent()
    maps.sides[:] = 40.0
    for label, column, logit in ((0, 2, 3.0), (0, 4, 2.0), (1, 4, 1.0)):
        maps.centres[0, label, 3, column] = logit
    (found,) = decode(maps, (480, 640))
    assert found.labels.tolist() == [0, 1]
    assert len(decode(maps, (480, 640), overlap=0.99)[0].labels) == 3


def test_boxes_are_cut_to_the_frame_and_weak_ones_left_out():
    maps = silent()
    maps.sides[:] = 1000.0
    maps.centres[0, 0, 0, 0] = 5.0
    maps.centres[0, 1, 4, 4] = -2.0  # a score of 0.35
    assert decode(maps, (40, 60))[0].boxes.tolist() == [[0, 0, 60, 40]] * 2
    assert decode(maps, (40, 60), threshold=0.5)[0].labels.tolist() == [0]
    (none,) = decode(maps, (40, 60), threshold=0.999)
    assert (none.boxes.shape, none.labels.shape, none.scores.shape) == ((0, 4), (0,), (0,))


def test_each_frame_has_its_own_objects_and_not_too_many():
    torch.manual_seed(0)
    maps = Maps(torch.randn(3, 2, 40, 40) + 2, torch.rand(3, 4, 40, 40) * 8, torch.randn(3, 1, 40, 40))
    maps.centres[1] = -20.0
    many, none, others = decode(maps, (320, 320))
    assert len(none.scores) == 0
    for found in (many, others):
        assert 20 < len(found.scores) <= MAX_OBJECTS
        assert (found.scores.diff() <= 0).all()
    assert not torch.equal(many.boxes[:5], others.boxes[:5])
    alone = decode(Maps(*(part[2:] for part in maps)), (320, 320))[0]
    assert torch.equal(alone.boxes, others.boxes)


@pytest.mark.parametrize("size", [(2, 2), (32, 32), (34, 62), (60, 100), (240, 320), (250, 322)])
def test_any_size_gives_maps_of_whole_cells(size):
    height, width = size
    maps = tiny()(torch.rand(2, 4, height // 2, width // 2) * 2 - 1)
    rows, columns = (-(-side // COARSEST) * COARSEST // STRIDE for side in size)
    assert maps.centres.shape == (2, 2, rows, columns)
    assert maps.sides.shape == (2, 4, rows, columns)
    assert maps.quality.shape == (2, 1, rows, columns)
    assert all(bool(torch.isfinite(part).all()) for part in maps)
    assert bool((maps.sides > 0).all())
    for found in decode(maps, size, threshold=0.0):
        assert bool((found.boxes >= 0).all())
        assert bool((found.boxes <= torch.tensor([width, height, width, height])).all())


def test_padding_is_to_the_right_and_below():
    planes = torch.rand(1, 4, 17, 31) + 1
    whole = padded(planes)
    assert whole.shape == (1, 4, 32, 32)
    assert torch.equal(whole[:, :, :17, :31], planes)
    assert whole.sum() == pytest.approx(planes.sum().item(), rel=1e-5)
    assert torch.equal(padded(whole), whole)


def test_cells_are_eight_photosites_apart():
    x, y = cell_middles(2, 3)
    assert (x.tolist(), y.tolist()) == ([4.0, 12.0, 20.0], [4.0, 12.0])


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("training", [False, True])
def test_a_frame_without_anything_gives_finite_maps(value, training):
    detector = tiny().train(training)
    planes = torch.full((2, 4, 32, 48), value, requires_grad=True)
    maps = detector(planes)
    assert all(bool(torch.isfinite(part).all()) for part in maps)
    sum(part.sum() for part in maps).backward()
    assert bool(torch.isfinite(planes.grad).all())


def scene(height: int = 128, width: int = 160) -> np.ndarray:
    """Smooth light, ``[H, W, 3]``: photosites beside each other see nearly the same, the three colours do not."""
    y, x = np.mgrid[0:height, 0:width] / 40.0
    light = [0.5 + 0.4 * np.sin(x + y), 0.45 + 0.35 * np.cos(1.3 * x - y), 0.3 + 0.25 * np.sin(0.8 * x + 2 * y)]
    return np.stack(light, axis=2).astype(np.float32)


def test_every_filter_array_gives_the_same_maps():
    detector, frames = tiny(), {}
    for cfa in Cfa:
        taken = expose(scene(), CameraSensor("p", cfa), Noise(0.0, 0.0), np.random.default_rng(0))
        frames[cfa] = taken.counts

    def maps(counts: np.ndarray, cfa: Cfa) -> torch.Tensor:
        planes = torch.from_numpy(to_planes(counts, cfa) / 4095 * 2 - 1).float()
        with torch.no_grad():
            found = detector(planes[None])
        return torch.cat([found.centres, found.sides.log(), found.quality], dim=1)

    reference = maps(frames[Cfa.RGGB], Cfa.RGGB)
    varied = reference.std(dim=(2, 3), keepdim=True)
    assert varied.min() > 0
    for cfa in Cfa:
        distance = ((maps(frames[cfa], cfa) - reference) / varied).abs().mean()
        assert distance < 0.1
        if cfa is not Cfa.RGGB:  # as it would be if the order were not obeyed
            assert ((maps(frames[cfa], Cfa.RGGB) - reference) / varied).abs().mean() > 0.5


def test_contrast_and_brightness_alone_change_nothing():
    planes = torch.from_numpy(to_planes(expose(
        scene(), CameraSensor("p", Cfa.RGGB), Noise(0.0, 0.0), np.random.default_rng(0)
    ).counts, Cfa.RGGB) / 4095.0).float()[None]  # fmt: skip
    detector = tiny()
    with torch.no_grad():
        bright, dim = detector(planes), detector(planes * 0.5 - 0.7)
    assert (bright.centres - dim.centres).abs().max() < 0.05 * bright.centres.std()
    other = torch.cat([planes, torch.rand_like(planes)])
    with torch.no_grad():
        assert torch.allclose(detector(other).centres[:1], bright.centres, atol=1e-4), "frames do not mix"


def test_maps_are_in_full_precision_however_features_are_computed():
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        maps = tiny()(torch.rand(1, 4, 32, 32))
    assert [part.dtype for part in maps] == [torch.float32] * 3


def test_the_untrained_network_sees_hardly_anything():
    torch.manual_seed(0)
    detector = Detector(DetectorConfig(3)).eval()
    with torch.no_grad():
        maps = detector(torch.rand(1, 4, 64, 64))
    assert maps.centres.sigmoid().mean().item() == pytest.approx(0.01, rel=0.5)
    assert maps.sides.mean().item() == pytest.approx(STRIDE, rel=0.3)


def test_the_network_is_small():
    assert sum(p.numel() for p in Detector(DetectorConfig(3)).parameters()) <= 3_000_000


def test_every_parameter_learns():
    detector = tiny().train()
    with torch.no_grad():  # blocks begin as the identity, which keeps what is before from learning in the first step
        for name, parameter in detector.named_parameters():
            if "norm.weight" in name:
                parameter.fill_(0.5)
    torch.manual_seed(0)
    maps = detector(torch.rand(2, 4, 64, 64))
    (maps.centres.square().sum() + maps.sides.log().square().sum() + maps.quality.square().sum()).backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize(
    "change",
    [
        {"classes": 0},
        {"classes": 65},
        {"classes": None},
        {"classes": "2"},
        {"classes": 1.5},
        {"widths": [8, 8, 8]},
        {"widths": [8, 8, 8, 8, 8]},
        {"widths": [8, 8, 8, 3]},
        {"widths": [8, 8, 8, 513]},
        {"widths": [8, 8, 8, 10**30]},
        {"widths": [8, 8, 8, float("inf")]},
        {"widths": [8, 8, 8, float("nan")]},
        {"widths": 8},
        {"widths": "four"},
        {"widths": ["8", "8", "8", "8"]},
        {"widths": [8, 8, 8, 8.5]},
        {"blocks": [1, 1, 1, 0]},
        {"blocks": [1, 1, 1, 9]},
        {"blocks": [1, 1, 1, float("-inf")]},
        {"blocks": None},
        {"head": 3},
        {"head": 513},
        {"head": 8.5},
        {"head": float("nan")},
        {"depth": 3},
    ],
    ids=str,
)
def test_sizes_of_no_detector(change):
    assert DetectorConfig.from_dict(TINY.to_dict()) == TINY
    with pytest.raises(BundleError, match="detector's sizes"):
        DetectorConfig.from_dict(TINY.to_dict() | change)


@pytest.mark.parametrize("missing", ["classes", "widths", "blocks"])
def test_sizes_that_are_missing(missing):
    fields = {name: value for name, value in TINY.to_dict().items() if name != missing}
    with pytest.raises(BundleError, match="detector's sizes"):
        DetectorConfig.from_dict(fields)
