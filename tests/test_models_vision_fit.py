"""Joint training of detectors: it learns, is resumable to the bit, and is particular about its checkpoint."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from models.vision.detector import Detector, DetectorConfig
from models.vision.fit import DetectorFit, DetectorSettings, JointDetector, detect, evaluate, light_of
from models.vision.shots import Shots, Variation, View
from quantization.errors import TrainingError
from quantization.gamma_image import (
    FixedPlanes,
    ImageQuantizer,
    PaperQuantizer,
    UnquantizedPlanes,
    linear_image,
    log_image,
)

torch.set_num_threads(1)

TINY = DetectorConfig(classes=2, widths=(8, 16, 16, 16), blocks=(1, 1, 1, 1), head=16)
SETTINGS = DetectorSettings(epochs=3, batch=2, seed=3)


def views(seed: int = 0, n: int = 4) -> list[View]:
    """A bright tall and a bright wide thing somewhere on grey, classes 0 and 1; already light."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(n):
        linear = np.full((64, 64, 3), 0.1, dtype=np.float32)
        boxes = []
        for half, (width, height) in enumerate(((14, 26), (26, 14))):
            left, top = int(rng.integers(2, 62 - width)), 33 * half + int(rng.integers(2, 31 - height)) if half else 3
            linear[top : top + height, left : left + width] = (0.9, 0.7, 0.2) if half else (0.2, 0.6, 0.9)
            boxes.append((left, top, left + width, top + height))
        made.append(View(f"v{number}", linear, np.array(boxes, dtype=np.float32), np.array([0, 1]), None))
    return made


def shots(seed: int = 3, *, of: list[View] | None = None, size: int = 64, **more: object) -> Shots:
    return Shots(of or views(), **({"gain": 0.9, "seed": seed, "width": size, "height": size} | more))


def curve(bits: int = 3, gamma: float = 0.5) -> ImageQuantizer:
    return ImageQuantizer(bits, gamma=[gamma] * 3, white=[0.8] * 3)


def joint(quantizer: object = None, config: DetectorConfig = TINY, *, lifted: bool = True) -> JointDetector:
    torch.manual_seed(3)
    return JointDetector(quantizer or curve(), Detector(config), lifted=lifted)


def fit(checkpoint: Path | None = None, settings: DetectorSettings = SETTINGS, **more: object) -> DetectorFit:
    options = {"model": joint(), "shots": shots()} | more
    return DetectorFit(**options, settings=settings, checkpoint=checkpoint)


class Stop:
    """Ctrl-C once ``epochs`` have been reported."""

    def __init__(self, epochs: int = 99) -> None:
        self.epochs = epochs
        self.seen: list[tuple[int, float]] = []

    def __call__(self, epoch: int, loss: float) -> None:
        self.seen.append((epoch, loss))
        if epoch == self.epochs:
            raise KeyboardInterrupt


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_it_learns_four_views_and_moves_the_curve():
    model, taken, seen = joint(), shots(), Stop()
    start = [parameter.detach().clone() for parameter in model.quantizer.parameters()]
    untrained = evaluate(joint().eval(), taken).ap50
    trained = fit(model=model, settings=DetectorSettings(epochs=80, batch=4, learning_rate=1e-2)).run(seen)
    precision = evaluate(trained, taken)
    assert precision.ap50 > max(0.6, untrained + 0.5)
    assert min(precision.ap50_by_class) > 0.4
    assert np.mean([loss for _, loss in seen.seen[-5:]]) < 0.5 * seen.seen[0][1]
    moved = [not torch.equal(a, b) for a, b in zip(start, trained.quantizer.parameters(), strict=True)]
    assert moved == [True] * 3
    assert not trained.training
    trained.quantizer.image_codebook()
    # What is in sight in darkness is found less well, and nothing where there is no light.
    assert evaluate(trained, taken, 0.0).ap50 < 0.1


def test_stopped_and_resumed_is_as_if_never_stopped(tmp_path):
    everything = Stop()
    whole = fit()
    kept = whole.run(everything)
    assert [epoch for epoch, _ in everything.seen] == [1, 2, 3]

    checkpoint = tmp_path / "new" / "run.safetensors"
    first, rest = Stop(2), Stop()
    with pytest.raises(KeyboardInterrupt):
        fit(checkpoint).run(first)
    torch.rand(17)  # whatever happens to the global generator between
    resumed = fit(checkpoint)
    assert same(resumed.run(rest), kept)
    assert same(resumed._model, whole._model)
    assert first.seen + rest.seen == everything.seen, "no epoch is lost, none is done twice"


def test_stopped_in_mid_epoch_begins_it_again(tmp_path):
    class Interrupted(Shots):
        def varied(self, index, epoch):
            if epoch == 2:
                raise KeyboardInterrupt
            return super().varied(index, epoch)

    checkpoint = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(checkpoint, shots=Interrupted(views(), gain=0.9, seed=3, width=64, height=64)).run()
    assert same(fit(checkpoint).run(), fit().run())


def test_a_finished_run_is_not_done_again(tmp_path):
    checkpoint, again = tmp_path / "run.safetensors", Stop()
    done = fit(checkpoint).run()
    assert same(fit(checkpoint).run(again), done)
    assert not again.seen
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"], "nothing half-written is left"


def test_what_comes_back_is_the_average_not_the_last_step():
    run = fit()
    kept = run.run()
    assert not same(kept, run._model)
    for name, buffer in kept.named_buffers():
        assert torch.isfinite(buffer).all(), name


def test_the_learning_rate_rises_and_falls_over_all_epochs():
    """The quantizer's with it, at its own multiple."""
    run = fit(settings=replace(SETTINGS, epochs=20))
    rates: list[tuple[float, float]] = []
    run.run(lambda _epoch, _loss: rates.append(tuple(group["lr"] for group in run._optimizer.param_groups)))
    network, quantizer = np.array(rates).T
    assert quantizer == pytest.approx(SETTINGS.quantizer_rate * network)
    assert network[0] < network.max() <= SETTINGS.learning_rate
    assert network.max() > 0.9 * SETTINGS.learning_rate
    assert network.argmax() < 5
    assert (np.diff(network[5:]) < 0).all()
    assert network[-1] < 1e-3 * SETTINGS.learning_rate


def test_another_seed_is_another_run():
    assert not same(fit().run(), fit(settings=replace(SETTINGS, seed=4), shots=shots(4)).run())


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory):
    checkpoint = tmp_path_factory.mktemp("fit") / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(checkpoint).run(Stop(1))
    return checkpoint


OTHERS = {
    "epochs": {"settings": replace(SETTINGS, epochs=5)},
    "batch": {"settings": replace(SETTINGS, batch=4)},
    "learning rate": {"settings": replace(SETTINGS, learning_rate=1e-3)},
    "quantizer's rate": {"settings": replace(SETTINGS, quantizer_rate=1.0)},
    "weight decay": {"settings": replace(SETTINGS, weight_decay=0.0)},
    "seed": {"settings": replace(SETTINGS, seed=4)},
    "bits": {"model": joint(curve(bits=4))},
    "start of the curve": {"model": joint(curve(gamma=0.6))},
    "published curve": {"model": joint(PaperQuantizer(3))},
    "fixed curve": {"model": joint(FixedPlanes(linear_image(3)))},
    "no curve": {"model": joint(UnquantizedPlanes())},
    "no lift": {"model": joint(lifted=False)},
    "network": {"model": joint(config=replace(TINY, head=8))},
    "views": {"shots": shots(of=views(1))},
    "fewer views": {"shots": shots(of=views()[:3])},
    "gain": {"shots": shots(gain=0.5)},
    "size": {"shots": shots(size=32)},
    "variation": {"shots": shots(variation=Variation(shift=0.1))},
    "seed of the shots": {"shots": shots(5)},
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_checkpoint_of_something_else_is_refused(one_epoch, name):
    with pytest.raises(TrainingError, match="other settings or data") as caught:
        fit(one_epoch, **OTHERS[name]).run()
    assert str(one_epoch) in str(caught.value)


def test_another_fixed_curve_is_refused(tmp_path):
    checkpoint = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(checkpoint, model=joint(FixedPlanes(linear_image(3)))).run(Stop(1))
    with pytest.raises(TrainingError, match="other settings"):
        fit(checkpoint, model=joint(FixedPlanes(log_image(3)))).run()


@pytest.mark.parametrize("missing", ["model.quantizer.gamma_raw", "average.n_averaged"])
def test_a_checkpoint_without_one_of_its_parts_is_refused(one_epoch, tmp_path, missing):
    with safe_open(one_epoch, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        del tensors[missing]
        save_file(tensors, tmp_path / "run.safetensors", metadata=file.metadata())
    with pytest.raises(TrainingError, match="cannot be read"):
        fit(tmp_path / "run.safetensors").run()


def test_too_few_views_for_a_batch():
    with pytest.raises(TrainingError, match="4 pictures do not fill a batch of 5"):
        fit(settings=replace(SETTINGS, batch=5))


def test_what_is_left_of_a_batch_waits_for_another_epoch():
    """Three views in batches of two: one is left out of each epoch, not always the same."""
    asked: list[tuple[int, int]] = []

    class Noted(Shots):
        def varied(self, index, epoch):
            asked.append((epoch, index))
            return super().varied(index, epoch)

    taken = Noted(views(n=3), gain=0.9, seed=3, width=32, height=32)
    fit(shots=taken, settings=replace(SETTINGS, epochs=8)).run()
    by_epoch = [{index for number, index in asked if number == epoch} for epoch in range(8)]
    assert {len(seen) for seen in by_epoch} == {2}
    assert set.union(*by_epoch) == {0, 1, 2}


def test_views_without_objects_are_no_trouble():
    empty = [
        replace(one, boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64)) if number % 2 else one
        for number, one in enumerate(views())
    ]
    for some in (empty, [empty[1], empty[3]]):
        trained = fit(shots=shots(of=some)).run()
        assert all(bool(torch.isfinite(tensor).all()) for tensor in trained.state_dict().values())


def test_a_weight_on_the_rate_widens_the_range():
    ranges = []
    for weight in (0.0, 3.0):
        trained = fit(settings=replace(SETTINGS, epochs=8, rate_weight=weight)).run()
        ranges.append(trained.quantizer.range)
    assert (ranges[1] > 1.05 * ranges[0]).all()


@pytest.mark.parametrize("quantizer", [FixedPlanes(linear_image(4)), UnquantizedPlanes()])
def test_a_rate_cannot_be_learned_by_what_does_not_learn(quantizer):
    with pytest.raises(TrainingError, match="learns: gamma or gamma-paper"):
        fit(model=joint(quantizer), settings=replace(SETTINGS, rate_weight=0.1))


def test_a_loss_that_is_not_finite_ends_the_run():
    broken = joint()
    with torch.no_grad():
        broken.detector.centre_head[1].bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="finite"):
        fit(model=broken).run()


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"batch": 1},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"quantizer_rate": -1.0},
        {"quantizer_rate": float("nan")},
        {"rate_weight": -0.1},
        {"rate_weight": float("nan")},
        {"weight_decay": -0.1},
        {"weight_decay": float("nan")},
    ],
)
def test_impossible_settings(change):
    with pytest.raises(TrainingError):
        replace(SETTINGS, **change)


def test_detecting_in_parts_is_detecting_in_one():
    """More shots than are looked at together."""
    model, taken = joint().eval(), shots()
    many = [taken.varied(index % 4, index) for index in range(19)]
    found = detect(model, many, threshold=0.0)
    assert len(found) == 19
    for index in (0, 15, 16, 18):
        (alone,) = detect(model, many[index : index + 1], threshold=0.0)
        # The sums of a batch of one may be made in another order.
        assert torch.allclose(alone.scores, found[index].scores, atol=1e-4)
    assert light_of(many).shape == (19, 4, 32, 32)
    assert light_of(many).dtype == torch.float64
