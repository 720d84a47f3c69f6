"""What the maps should say, and that saying it costs nothing."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.vision.detection_loss import Targets, _focal, _generalised, loss_of, targets_of
from models.vision.detector import STRIDE, Maps, cell_middles, decode

torch.set_num_threads(1)

NONE = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)


def targets(*images: list[tuple[tuple[float, float, float, float], int]], size: tuple[int, int] = (12, 16)) -> Targets:
    """On 96 × 128 photosites; boxes and labels of each image."""
    boxes = [torch.tensor([box for box, _ in image]).reshape(-1, 4).float() for image in images]
    labels = [torch.tensor([label for _, label in image], dtype=torch.int64) for image in images]
    return targets_of(boxes, labels, 3, *size)


def truthful(wanted: Targets, share: float = 1.0) -> Maps:
    """Maps that say what is wanted, or something between that and nothing."""
    y, x = torch.meshgrid(*(middles for middles in reversed(cell_middles(*wanted.heat.shape[2:]))), indexing="ij")
    left, top, right, bottom = wanted.boxes.unbind(1)
    sides = torch.stack([x - left, y - top, right - x, bottom - y], dim=1)
    sides = torch.where(wanted.weights[:, None] > 0, sides, torch.full_like(sides, 4.0)).clamp_min(0.1)
    centres = torch.where(wanted.heat == 1, 1.0, -1.0) * 12 * share - 4 * (1 - share)
    return Maps(centres, share * sides + (1 - share) * 4.0, torch.full_like(wanted.weights, 12 * share)[:, None])


OBJECTS = [((10.0, 20.0, 50.0, 60.0), 0), ((70.0, 8.0, 100.0, 90.0), 2), ((0.0, 70.0, 12.0, 82.0), 0)]


def test_an_objects_centre_is_one_in_the_map_of_its_class():
    wanted = targets(OBJECTS, [])
    assert wanted.objects == 3
    assert wanted.heat.shape == (2, 3, 12, 16)
    # Centres (30, 40), (85, 49) and (6, 76): the cells that hold them.
    assert (wanted.heat == 1).nonzero().tolist() == [[0, 0, 5, 3], [0, 0, 9, 0], [0, 2, 6, 10]]
    assert wanted.heat.max() == 1
    assert wanted.heat.min() >= 0
    assert wanted.heat[0, 1].sum() == wanted.heat[1].sum() == wanted.weights[1].sum() == 0


@given(st.lists(st.tuples(st.floats(0, 120), st.floats(0, 90), st.floats(1, 120), st.floats(1, 90), st.integers(0, 2))))
@settings(deadline=None)
def test_whatever_the_boxes_centres_are_one_and_weights_sum_to_at_most_one(drawn):
    objects = [((x, y, min(x + w, 128.0), min(y + h, 96.0)), label) for x, y, w, h, label in drawn]
    wanted = targets(objects)
    for box, label in objects:
        row, column = int((box[1] + box[3]) / 2 / STRIDE), int((box[0] + box[2]) / 2 / STRIDE)
        assert wanted.heat[0, label, min(row, 11), min(column, 15)] == 1
    assert wanted.heat.max() <= 1
    assert wanted.weights.sum() <= len(objects) + 1e-4
    if len(objects) == 1:
        assert wanted.weights.sum().item() == pytest.approx(1, abs=1e-5)


def test_every_object_weighs_the_same():
    wanted = targets(OBJECTS)
    for (left, top, right, bottom), _ in OBJECTS:
        its = (wanted.boxes[0] == torch.tensor([left, top, right, bottom])[:, None, None]).all(dim=0)
        assert wanted.weights[0][its].sum().item() == pytest.approx(1, abs=1e-5)
        rows, columns = its.nonzero().T
        # Only cells in the middle of the box learn it.
        assert ((columns + 0.5) * STRIDE - (left + right) / 2).abs().max() <= max(STRIDE, (right - left) / 4)
        assert ((rows + 0.5) * STRIDE - (top + bottom) / 2).abs().max() <= max(STRIDE, (bottom - top) / 4)
    assert wanted.weights.sum().item() == pytest.approx(3, abs=1e-5)


def test_a_larger_object_lights_a_wider_bell():
    def lit(side: float) -> int:
        box = (60 - side / 2, 44 - side / 2, 60 + side / 2, 44 + side / 2)
        return int((targets([(box, 0)]).heat > 0.3).sum())

    assert lit(8) <= lit(24) <= lit(64) < lit(88)
    tall = targets([((50.0, 4.0, 70.0, 92.0), 0)]).heat[0, 0]
    assert (tall.amax(dim=1) > 0.3).sum() > (tall.amax(dim=0) > 0.3).sum()


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("turned", [False, True])
def test_where_two_lie_on_each_other_the_smaller_has_its_cells(label, turned):
    large, small = (0.0, 0.0, 128.0, 96.0), (52.0, 36.0, 76.0, 60.0)
    objects = [(large, 0), (small, label)]
    wanted = targets(objects[::-1] if turned else objects)
    assert wanted.boxes[0, :, 6, 8].tolist() == list(small)
    found = {tuple(box) for box in wanted.boxes[0].flatten(1).T.tolist()}
    assert found == {large, small, (0.0, 0.0, 0.0, 0.0)}


def test_centres_on_and_beyond_the_edge_count_for_the_last_cells():
    wanted = targets([((120.0, 90.0, 136.0, 102.0), 1), ((-8.0, -8.0, 6.0, 6.0), 1)])
    assert (wanted.heat == 1).nonzero().tolist() == [[0, 1, 0, 0], [0, 1, 11, 15]]


def test_the_loss_falls_all_the_way_to_the_truth():
    wanted = targets(OBJECTS, [], [((40.0, 40.0, 90.0, 90.0), 1)])
    losses = [loss_of(truthful(wanted, share), wanted).item() for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert all(later < earlier for earlier, later in itertools.pairwise(losses))
    assert losses[-1] < 0.03 * losses[0]
    assert losses[-1] < 0.05


@pytest.mark.parametrize("part", ["centres", "sides", "quality"])
def test_each_map_that_is_wrong_costs(part):
    wanted = targets(OBJECTS)
    truth = truthful(wanted)
    wrong = {"centres": -truth.centres, "sides": truth.sides * 2, "quality": -truth.quality}[part]
    assert loss_of(truth._replace(**{part: wrong}), wanted) > loss_of(truth, wanted) + 0.3


def test_following_the_gradient_finds_the_objects():
    wanted = targets(OBJECTS[:2])
    raw = [torch.full((1, 3, 12, 16), -4.0), torch.zeros(1, 4, 12, 16), torch.zeros(1, 1, 12, 16)]
    for part in raw:
        part.requires_grad_()
    optimizer = torch.optim.Adam(raw, lr=0.2)
    for _ in range(120):
        loss = loss_of(Maps(raw[0], 8 * raw[1].exp(), raw[2]), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    (found,) = decode(Maps(raw[0].detach(), 8 * raw[1].detach().exp(), raw[2].detach()), (96, 128), threshold=0.4)
    assert sorted(found.labels.tolist()) == [0, 2]
    for box, label in OBJECTS[:2]:
        at = found.labels.tolist().index(label)
        assert found.boxes[at].tolist() == pytest.approx(box, abs=2.0)


def test_images_without_objects_have_a_finite_loss_that_quiet_maps_lower():
    wanted = targets_of([NONE[0]] * 2, [NONE[1]] * 2, 3, 12, 16)
    assert (wanted.objects, wanted.heat.sum(), wanted.weights.sum()) == (0, 0, 0)
    centres = torch.zeros(2, 3, 12, 16, requires_grad=True)
    maps = Maps(centres, torch.ones(2, 4, 12, 16), torch.zeros(2, 1, 12, 16))
    loss = loss_of(maps, wanted)
    loss.backward()
    assert torch.isfinite(loss)
    assert bool((centres.grad > 0).all())
    assert loss_of(maps._replace(centres=torch.full_like(centres, -5.0)), wanted) < 0.1 * loss.detach()


@pytest.mark.parametrize("size", [0.0, 80.0])
def test_extreme_maps_have_finite_losses_and_gradients(size):
    wanted = targets(OBJECTS)
    centres = torch.full((1, 3, 12, 16), -size, requires_grad=True)
    raw = torch.full((1, 4, 12, 16), 6.0 if size else -6.0, requires_grad=True)
    quality = torch.full((1, 1, 12, 16), size, requires_grad=True)
    loss = loss_of(Maps(centres, 8 * raw.exp(), quality), wanted)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(bool(torch.isfinite(part.grad).all()) for part in (centres, raw, quality))


def test_the_loss_is_that_of_an_object():
    """Not of an image or a batch: twice the same image has the same loss."""
    one, two = targets(OBJECTS), targets(OBJECTS, OBJECTS)
    maps = truthful(one, 0.4)
    both = Maps(*(torch.cat([part, part]) for part in maps))
    assert loss_of(both, two).item() == pytest.approx(loss_of(maps, one).item(), rel=1e-5)


def test_the_focal_loss_is_its_formula():
    """CenterNet, equation 1, in plain Python."""
    torch.manual_seed(0)
    logits = torch.randn(1, 2, 3, 4)
    heat = torch.rand(1, 2, 3, 4)
    heat[0, 1, 2, 0] = heat[0, 0, 1, 1] = 1.0
    expected = 0.0
    for logit, y in zip(logits.flatten().tolist(), heat.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-logit))
        expected -= (1 - p) ** 2 * math.log(p) if y == 1 else (1 - y) ** 4 * p**2 * math.log(1 - p)
    assert _focal(logits, heat).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("found", "wanted", "iou", "giou"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1.0, 1.0),
        ((0, 0, 2, 2), (1, 0, 3, 2), 1 / 3, 1 / 3),
        ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7, 1 / 7 - 2 / 9),
        ((0, 0, 1, 1), (2, 0, 3, 1), 0.0, -1 / 3),
        ((0, 0, 4, 4), (1, 1, 2, 2), 1 / 16, 1 / 16),
    ],
)
def test_generalised_overlaps_by_hand(found, wanted, iou, giou):
    result = _generalised(torch.tensor([found]).float(), torch.tensor([wanted]).float())
    assert [part.item() for part in result] == pytest.approx([iou, giou], abs=1e-6)
