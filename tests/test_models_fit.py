"""Joint training: resumable to the bit, particular about its checkpoint, and it stops when it should."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from models.augment import Augment, Crops
from models.fit import Epoch, Fit, FitSettings, JointModel, logits_of
from models.har import HarConfig, build
from models.resample import Segment
from models.windows import Windows, cut
from quantization.baselines import linear, mu_law
from quantization.errors import TrainingError
from quantization.gamma import FixedQuantizer, GammaQuantizer, Quantizer
from quantization.imu import ACC
from quantization.sensor import Sensor

torch.set_num_threads(1)
PART = Sensor.symmetric("p", ACC, adc_bits=12, full_scale={"acc": 8.0})
WINDOW = 16
VARIED = Augment(mirror=0.0)
SETTINGS = FitSettings(epochs=4, batch=16, learning_rate=5e-3, patience=0, seed=3)


def segments(seed: int, label: int | None = None, n: int = 240) -> list[Segment]:
    """Slow and fast swings, 240 samples each."""
    rng = np.random.default_rng(seed)
    out = []
    for kind, speed in enumerate((0.2, 1.2)):
        phase = rng.random(3) * 6
        values = np.sin(speed * np.arange(n)[:, None] + phase) + 0.1 * rng.normal(size=(n, 3))
        truth = np.full(n, kind if label is None else label, np.int16)
        out.append(Segment(f"s{seed}", str(kind), ACC, 20.0, 0.0, values.astype(np.float32), truth))
    return out


def crops(seed: int = 0, **more: object) -> Crops:
    options = {"length": WINDOW, "stride": 8, "classes": 2, "augment": VARIED} | more
    return Crops(segments(seed), **options)


def validation(seed: int = 1) -> Windows:
    return cut(segments(seed), length=WINDOW, stride=8, classes=2)


def model(quantizer: Quantizer | None = None, kind: str = "tinier", dropout: float = 0.3) -> JointModel:
    torch.manual_seed(3)
    return JointModel(quantizer or GammaQuantizer([2.0] * 3, bits=3), build(HarConfig(kind, 3, 2, WINDOW, dropout)))


def fit(checkpoint: Path | None = None, settings: FitSettings = SETTINGS, **more: object) -> Fit:
    options = {"model": model(), "crops": crops(), "validation": validation(), "sensor": PART} | more
    return Fit(**options, settings=settings, checkpoint=checkpoint)


def state(run: Fit) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in run._model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Stop:
    """Ctrl-C once ``epochs`` have been reported."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.seen: list[Epoch] = []

    def __call__(self, epoch: Epoch) -> None:
        self.seen.append(epoch)
        if epoch.number == self.epochs:
            raise KeyboardInterrupt


@pytest.mark.parametrize("patience", [0, 3])
def test_stopped_and_resumed_is_as_if_never_stopped(tmp_path, patience):
    settings = replace(SETTINGS, patience=patience)
    whole = fit(settings=settings)
    all_epochs = Stop(99)
    kept = whole.run(all_epochs)

    checkpoint = tmp_path / "new" / "run.safetensors"
    first = Stop(2)
    with pytest.raises(KeyboardInterrupt):
        fit(checkpoint, settings).run(first)
    torch.rand(17)  # whatever happens to the global generator between
    resumed = fit(checkpoint, settings)
    rest = Stop(99)
    assert resumed.run(rest) == kept
    assert same(state(resumed), state(whole))
    assert [e.number for e in (*first.seen, *rest.seen)] == [1, 2, 3, 4], "no epoch is lost, none is done twice"
    assert [e.loss for e in (*first.seen, *rest.seen)] == [e.loss for e in all_epochs.seen]
    assert [e.best for e in (*first.seen, *rest.seen)] == [e.best for e in all_epochs.seen]


def test_a_finished_run_is_not_done_again(tmp_path):
    checkpoint = tmp_path / "run.safetensors"
    done = fit(checkpoint)
    done.run()
    again = fit(checkpoint)
    reported = Stop(99)
    assert again.run(reported) == 4
    assert not reported.seen
    assert same(state(again), state(done))
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"], "nothing half-written is left"


def test_another_seed_is_another_run():
    a, b = fit(), fit(settings=replace(SETTINGS, seed=4))
    a.run()
    b.run()
    assert not same(state(a), state(b))


OTHERS = {
    "epochs": {"settings": replace(SETTINGS, epochs=5)},
    "batch": {"settings": replace(SETTINGS, batch=8)},
    "learning rate": {"settings": replace(SETTINGS, learning_rate=1e-3)},
    "seed": {"settings": replace(SETTINGS, seed=4)},
    "bits": {"model": model(GammaQuantizer([2.0] * 3, bits=4))},
    "variant": {"model": model(GammaQuantizer([2.0] * 3, bits=3, variant="paper"))},
    "start of the curve": {"model": model(GammaQuantizer([2.0] * 3, bits=3, init="s-shaped"))},
    "full scale": {"model": model(GammaQuantizer([2.0, 2.0, 2.5], bits=3))},
    "kind of quantizer": {"model": model(FixedQuantizer(linear(ACC, 3, 20.0, [2.0] * 3)))},
    "network": {"model": model(kind="cnn")},
    "dropout": {"model": model(dropout=0.1)},
    "recordings": {"crops": crops(seed=5)},
    "window": {"crops": crops(length=12)},
    "stride": {"crops": crops(stride=7)},
    "augmentation": {"crops": crops(augment=Augment(mirror=0.25))},
    "validation": {"validation": validation(seed=6)},
    "no validation": {"validation": None},
    "part": {"sensor": Sensor.symmetric("p", ACC, adc_bits=12, full_scale={"acc": 4.0})},
}


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory):
    checkpoint = tmp_path_factory.mktemp("fit") / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(checkpoint).run(Stop(1))
    return checkpoint


@pytest.mark.parametrize("name", OTHERS)
def test_a_checkpoint_of_something_else_is_refused(one_epoch, name):
    with pytest.raises(TrainingError, match="other settings or data") as caught:
        fit(one_epoch, **OTHERS[name]).run()
    assert str(one_epoch) in str(caught.value)


def test_another_codebook_to_keep_is_refused(tmp_path):
    """Its tables are in the checkpoint too: going on would silently train for the first one."""
    checkpoint = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(checkpoint, model=model(FixedQuantizer(linear(ACC, 3, 20.0, [2.0] * 3)))).run(Stop(1))
    with pytest.raises(TrainingError, match="other settings"):
        fit(checkpoint, model=model(FixedQuantizer(mu_law(ACC, 3, 20.0, [2.0] * 3)))).run()


@pytest.mark.parametrize("missing", ["model.network.head.bias", "average.n_averaged", "rng.crops"])
def test_a_checkpoint_without_one_of_its_parts_is_refused(one_epoch, tmp_path, missing):
    with safe_open(one_epoch, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        del tensors[missing]
        save_file(tensors, tmp_path / "run.safetensors", metadata=file.metadata())
    with pytest.raises(TrainingError, match="cannot be read"):
        fit(tmp_path / "run.safetensors").run()


def scripted(monkeypatch: pytest.MonkeyPatch, curve: list[float]) -> None:
    """Validation scores as given, whatever the network says."""
    import models.fit

    real, scores = models.fit.score, iter(curve)
    monkeypatch.setattr(models.fit, "score", lambda *given: replace(real(*given), macro_f1=next(scores)))


def test_early_stopping_keeps_the_best_epoch(monkeypatch):
    scripted(monkeypatch, [0.2, 0.9, 0.5, 0.9, 0.1, 0.95])
    run = fit(settings=replace(SETTINGS, epochs=9, patience=3))
    states = []
    kept = run.run(lambda _: states.append({k: v.clone() for k, v in run._average.module.state_dict().items()}))
    assert kept == 2, "an equal score is no progress"
    assert len(states) == 5, "epochs 3, 4 and 5 brought nothing"
    assert same(state(run), states[1])
    assert not run._model.training


def test_patience_0_trains_to_the_end_and_keeps_it(monkeypatch):
    scripted(monkeypatch, [0.9, 0.1, 0.1, 0.1])
    assert fit().run() == 4
    assert fit(validation=None).run() == 4


def test_it_learns_and_moves_the_curve():
    run = fit(crops=crops(stride=1), settings=replace(SETTINGS, epochs=8, learning_rate=1e-2))
    before = {k: v.clone() for k, v in run._model.quantizer.state_dict().items()}
    seen = Stop(99)
    run.run(seen)
    assert seen.seen[-1].loss < 0.7 * seen.seen[0].loss
    assert seen.seen[-1].validation.macro_f1 > 0.9
    after = run._model.quantizer.state_dict()
    assert all(not torch.equal(before[name], after[name]) for name in ("gamma_raw", "centre_raw", "scale_raw"))
    assert torch.equal(before["initial_scale"], after["initial_scale"])


def test_a_batch_without_any_label_is_no_trouble():
    """The mean of no losses is not a number; it used to end the run, and would have ended the weights."""
    quiet = Crops(segments(0, label=-1), length=WINDOW, stride=8, classes=2, augment=VARIED)
    run = fit(crops=quiet)
    run.run()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state(run).values())
    mostly = Crops([*segments(0), *segments(7, label=-1)], length=WINDOW, stride=16, classes=2, augment=VARIED)
    run = fit(crops=mostly, settings=replace(SETTINGS, batch=2, epochs=2))
    run.run()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state(run).values())


def test_background_makes_it_unsure():
    """Outlier exposure: noise that it was shown as background has less evidence than what it learned."""
    rng = np.random.default_rng(0)
    values = 3 * rng.normal(size=(480, 3)).astype(np.float32)
    noise = [replace(segments(8)[0], values=values, label=np.zeros(480, np.int16))]
    settings = replace(SETTINGS, epochs=8, learning_rate=1e-2)
    run = fit(crops=crops(background=noise, stride=2), settings=settings)
    run.run()
    known = logits_of(run._model, validation(), PART).softmax(dim=1).amax(dim=1)
    strange = cut(noise, length=WINDOW, stride=8, classes=2)
    unknown = logits_of(run._model, strange, PART).softmax(dim=1).amax(dim=1)
    assert known.median() > unknown.median() + 0.1


def test_a_loss_that_is_not_finite_ends_the_run():
    broken = model()
    with torch.no_grad():
        broken.network.head.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="finite"):
        fit(model=broken).run()


@pytest.mark.parametrize("change", [{"epochs": 0}, {"batch": 1}, {"learning_rate": 0.0}, {"patience": -1}])
def test_impossible_settings(change):
    with pytest.raises(TrainingError):
        replace(SETTINGS, **change)
