"""Training crops: what they may vary, and what they may not."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from models.augment import BACKGROUND, Augment, Crops, adc
from models.resample import Segment
from models.windows import majority_label
from quantization.errors import TrainingError
from quantization.imu import ACC, ACC_GYRO
from quantization.sensor import Sensor

torch.set_num_threads(1)
NONE = Augment(rate=0.0, rotation_deg=0.0, gain=0.0, mirror=0.0)


def segments(n: int = 300, channels: tuple[str, ...] = ACC_GYRO, seed: int = 0) -> list[Segment]:
    """Three recordings with bouts of random length; column 0 is the index of the sample."""
    rng = np.random.default_rng(seed)
    out = []
    for index in range(3):
        values = rng.normal(size=(n, len(channels))).astype(np.float32)
        values[:, 0] = np.arange(n) + 1000 * index
        label = np.repeat(rng.integers(-1, 3, size=n), rng.integers(5, 40, size=n))[:n].astype(np.int16)
        out.append(Segment(f"s{index}", "r", channels, 50.0, 0.0, values, label))
    return out


def crops(augment: Augment, length: int = 20, **more: object) -> Crops:
    return Crops(segments(), length=length, stride=5, classes=3, augment=augment, **more)


def epoch(made: Crops, seed: int = 1, size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    values, truth = zip(*made.batches(size, torch.Generator().manual_seed(seed)), strict=True)
    return torch.cat(values), torch.cat(truth)


def test_shapes_and_number():
    made = crops(Augment())
    batches = list(made.batches(16, torch.Generator().manual_seed(0)))
    assert len(batches) == made.batches_per_epoch(16) == 12  # 900 / 5 = 180 crops
    for values, truth in batches:
        assert values.shape[1:] == (20, 6)
        assert (values.dtype, truth.dtype) == (torch.float32, torch.int64)
        assert len(values) == len(truth)
    assert sum(len(truth) for _, truth in batches) == 180
    assert made.class_counts().tolist() == [sum(int((s.label == k).sum()) for s in segments()) for k in range(3)]
    assert made.values().shape == (900, 6)


def test_an_unvaried_crop_is_a_piece_of_a_recording_with_the_truth_of_the_scoring_rule():
    values, truth = epoch(crops(NONE))
    recordings = segments()
    starts = values[:, 0, 0].long().tolist()
    assert len(set(starts)) == len(starts), "no crop comes twice in an epoch"
    for window, start, found in zip(values.numpy(), starts, truth.tolist(), strict=True):
        one, at = recordings[start // 1000], start % 1000
        assert at + 20 <= 300, "no crop spans two recordings"
        assert np.array_equal(window, one.values[at : at + 20])
        assert found == majority_label(one.label[None, at : at + 20], 3)[0][0]
    assert {-1, 0, 1, 2} == set(truth.tolist())


def test_a_rate_that_is_off_stretches_time_and_labels_alike():
    values, _ = epoch(crops(Augment(rate=0.05, rotation_deg=0.0, gain=0.0, mirror=0.0)))
    time = values[:, :, 0]  # the index of the sample, interpolated
    step = time.diff(dim=1)
    assert bool(((step > 0.949) & (step < 1.051)).all())
    assert step.mean(dim=1).std() > 0.01
    assert torch.allclose(step, step.mean(dim=1, keepdim=True).expand_as(step), atol=2e-3), "even within a crop"
    assert bool((time[:, -1] % 1000 <= 299.001).all())
    assert bool((time[:, 0] // 1000 == time[:, -1] // 1000).all())


def test_the_same_seed_makes_the_same_crops_and_another_does_not():
    made = crops(Augment(mirror=0.5))
    first, again, other = epoch(made, 1), epoch(made, 1), epoch(made, 2)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def vary(values: torch.Tensor, augment: Augment) -> torch.Tensor:
    return crops(augment)._vary(values, torch.Generator().manual_seed(3))


def test_mirrored_twice_is_as_before_and_once_is_the_other_wrist():
    values = torch.randn(8, 20, 6)
    mirror = Augment(rate=0.0, rotation_deg=0.0, gain=0.0, mirror=1.0)
    once = vary(values, mirror)
    assert torch.equal(once, values * torch.tensor([-1.0, 1, 1, 1, -1, -1]))
    assert torch.equal(vary(once, mirror), values)
    assert torch.equal(vary(values, NONE), values)


def test_mirroring_is_a_mirroring():
    """Rotation after mirroring is mirroring after the mirrored rotation: d(Mv)/dt = (Mω) × (Mv), ω a pseudo-vector."""
    v, w = torch.randn(5, 20, 3), torch.randn(5, 20, 3)
    change = torch.linalg.cross(w, v)
    mirror = Augment(rate=0.0, rotation_deg=0.0, gain=0.0, mirror=1.0)
    mirrored = vary(torch.cat([v, w], dim=2), mirror)
    expected = vary(torch.cat([change, w], dim=2), mirror)[..., :3]
    assert torch.allclose(torch.linalg.cross(mirrored[..., 3:], mirrored[..., :3]), expected, atol=1e-5)


def test_rotation_keeps_norms_and_turns_both_parts_alike():
    values = torch.randn(50, 20, 6)
    values[..., 3:] = values[..., :3]
    turned = vary(values, Augment(rate=0.0, rotation_deg=30.0, gain=0.0, mirror=0.0))
    for part in (turned[..., :3], turned[..., 3:]):
        assert torch.allclose(part.norm(dim=2), values[..., :3].norm(dim=2), rtol=1e-4)
    assert torch.allclose(turned[..., :3], turned[..., 3:])
    assert (turned - values).abs().max() > 0.3
    # one rotation for a whole window: angles between samples stay as well
    inner = (values[:, :1, :3] * values[..., :3]).sum(dim=2)
    assert torch.allclose((turned[:, :1, :3] * turned[..., :3]).sum(dim=2), inner, atol=1e-4)


def test_gain_is_one_factor_for_a_channel_of_a_window():
    ratio = vary(torch.ones(200, 20, 6), Augment(rate=0.0, rotation_deg=0.0, gain=0.02, mirror=0.0))
    assert torch.equal(ratio, ratio[:, :1].expand_as(ratio))
    assert ratio[:, 0].std().item() == pytest.approx(0.02, rel=0.1)


def test_channels_that_are_no_triples_are_not_turned():
    some = [Segment("s", "r", ("acc_x",), 50.0, 0.0, np.ones((50, 1), np.float32), np.zeros(50, np.int16))]
    made = Crops(some, length=10, stride=2, classes=2, augment=Augment(rate=0.0, gain=0.0, mirror=1.0))
    assert torch.equal(epoch(made)[0], torch.ones(25, 10, 1))


def test_background_has_a_truth_of_its_own():
    strange = segments(seed=9)[:1]
    made = crops(NONE, background=strange)
    values, truth = epoch(made)
    assert {-1, 0, 1, 2, BACKGROUND} == set(truth.tolist())
    assert made.class_counts().tolist() == crops(NONE).class_counts().tolist()
    assert strange[0].label.min() >= -1, "what was given is left as it was"
    assert values.shape[1:] == (20, 6)


def test_what_is_too_short():
    with pytest.raises(TrainingError, match="300 samples"):
        crops(Augment(), length=300)
    assert len(epoch(crops(NONE, length=300), size=3)[0]) == 3


def test_description_tells_crops_apart():
    made = [
        crops(NONE),
        crops(Augment()),
        crops(NONE, length=21),
        Crops(segments(), length=20, stride=6, classes=3, augment=NONE),
        Crops(segments(), length=20, stride=5, classes=4, augment=NONE),
        Crops(segments(seed=1), length=20, stride=5, classes=3, augment=NONE),
        Crops([replace(s, label=s.label[::-1]) for s in segments()], length=20, stride=5, classes=3, augment=NONE),
        crops(NONE, background=segments(seed=2)),
    ]
    assert len({str(one.describe()) for one in made}) == len(made)
    assert made[0].describe() == crops(NONE).describe()
    assert asdict(NONE) in made[0].describe()


SENSORS = [
    Sensor("p", ACC, 8, (8 / 128,) * 3, (0, 0, 0)),
    Sensor("p", ACC, 12, (8 / 2048, 2000 / 2048, 0.004), (0, 0, 0)),
    Sensor("p", ACC, 12, (0.004, 0.0039, 0.07), (2000, 2048, 1990), signed=False),
    Sensor("p", ACC, 16, (0.000244, 0.061, 0.0175), (0, 0, 100)),
]


@pytest.mark.parametrize("sensor", SENSORS)
def test_the_adc_in_training_is_that_of_the_device(sensor):
    rng = np.random.default_rng(0)
    full_scale = np.asarray(sensor.lsb) * 2**sensor.adc_bits
    values = (rng.normal(size=(20_000, 3)) * 0.4 * full_scale).astype(np.float32)
    ties = (rng.integers(-99, 99, size=(2000, 3)) + 0.5) * np.asarray(sensor.lsb)
    for block in (values, ties.astype(np.float32)):
        expected = sensor.to_physical(sensor.to_counts(block)).astype(np.float32)
        measured = adc(torch.from_numpy(block), sensor)
        assert measured.dtype == torch.float32
        assert np.array_equal(measured.numpy(), expected)
    assert len(np.unique(sensor.to_counts(values)[:, 0])) > 100
