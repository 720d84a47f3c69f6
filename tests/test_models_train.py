"""From a folder of one's own recordings to a bundle that recognises, and back through evaluation."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.augment import Augment, Crops
from models.bundle import Bundle, load_bundle
from models.evaluate import own_task
from models.fit import Epoch, FitSettings
from models.tasks import Material, load_material, split
from models.train import TrainSettings, fit_once, make_quantizer, train_bundle
from models.windows import SCORING_RULE
from quantization.codebook import ContextLayout
from quantization.errors import BundleError, DatasetError, TrainingError

torch.set_num_threads(1)
TASK = replace(own_task("wrist", 20.0), window_s=1.0, stride_s=0.1)
SETTINGS = TrainSettings(
    network="tinier",
    fit=FitSettings(epochs=3, batch=8, learning_rate=1e-2, patience=0),
    augment=Augment(rotation_deg=5.0, mirror=0.0),
)


def write_recordings(folder: Path, subjects: int = 4, seed: int = 0) -> Path:
    """10 s of stirring (slow, turning) and 10 s of hammering (fast) from everyone, at about 25 Hz."""
    rng = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    for subject in range(subjects):
        rows = ["t_s,acc_x,acc_y,acc_z,gyro_x,gyro_y,gyro_z,label"]
        for k in range(500):
            hammering = k >= 250
            t = k / 25 + 0.002 * rng.random()
            speed = (8.0 if hammering else 2.0) + 0.3 * subject
            swing = (0.8 if hammering else 0.15) * np.sin(speed * t + subject)
            turn = (20 if hammering else 180) * np.cos(speed * t)
            values = [swing, 0.1 * swing, 1.0, turn, 0.2 * turn, -turn] + 0.01 * rng.normal(size=6)
            rows.append(f"{t:.4f}," + ",".join(f"{v:.4f}" for v in values) + (",hammer" if hammering else ",stir"))
        (folder / f"p{subject}_kitchen.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    return write_recordings(tmp_path_factory.mktemp("own") / "recordings")


@pytest.fixture(scope="module")
def material(recordings) -> Material:
    return load_material(TASK, recordings)


@pytest.fixture(scope="module")
def trained(material, tmp_path_factory) -> tuple[Path, Bundle, list[Epoch]]:
    epochs: list[Epoch] = []
    out = tmp_path_factory.mktemp("runs")
    folder, bundle = train_bundle(TASK, material, SETTINGS, name="mine", version=1, out=out, report=epochs.append)
    return folder, bundle, epochs


def test_a_bundle_comes_out_that_recognises(trained):
    folder, bundle, epochs = trained
    assert folder.name == bundle.reference == "mine@1"
    assert bundle.manifest.scores.macro_f1 > 0.9
    assert [epoch.number for epoch in epochs] == [1, 2, 3]
    assert all(epoch.of == 3 and np.isfinite(epoch.loss) and epoch.validation is not None for epoch in epochs)
    loaded = load_bundle(folder)
    assert loaded.manifest == bundle.manifest
    assert loaded.codebook == bundle.codebook


def test_its_manifest_says_where_it_comes_from(trained, material):
    manifest = trained[1].manifest
    assert manifest.labels == ["hammer", "stir"]
    assert (manifest.rate_hz, manifest.window, manifest.stride) == (20.0, 20, 2)
    train, validation, test = split(TASK, material.subjects)
    assert (manifest.data.train_subjects, manifest.data.validation_subjects) == (train, validation)
    assert manifest.data.test_subjects == test
    assert sorted([*train, *validation, *test]) == ["p0", "p1", "p2", "p3"]
    assert manifest.data.dataset == "own"
    scores = manifest.scores
    assert scores.scoring_rule == SCORING_RULE
    assert scores.subjects == len(test) == 1
    assert "p0" in scores.protocol
    assert 0 <= scores.unknown_share <= 1
    assert scores.windows > 50
    assert manifest.training["quantizer"] == "gamma"
    assert manifest.training["epochs"] == 3


def test_its_codebook_is_learned_and_knows_how_often_codes_occur(trained):
    book = trained[1].codebook
    assert book.bits == 4
    assert book.rate_hz == 20.0
    assert book.contexts is not None
    assert book.contexts.shape == (len(book.channels), ContextLayout.of(4).size)
    assert len(np.unique(book.contexts)) > 20, "counted"
    assert (np.diff(book.thresholds, axis=1) > 0).all()
    assert book.thresholds[:3].max() < 8.0, "narrower than the ADC"


def test_the_same_command_makes_the_same_bundle(trained, material, tmp_path):
    folder, bundle, _ = trained
    again_folder, again = train_bundle(TASK, material, SETTINGS, name="mine", version=1, out=tmp_path)
    for file in ("codebook.bin", "codebook.json", "model.safetensors"):
        assert (again_folder / file).read_bytes() == (folder / file).read_bytes()
    assert again.manifest.model_copy(update={"created": bundle.manifest.created}) == bundle.manifest


def test_a_stopped_training_goes_on(trained, material, tmp_path):
    def stop(epoch: Epoch) -> None:
        if epoch.number == 2:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "here.safetensors"
    common = {"name": "mine", "version": 1, "out": tmp_path, "checkpoint": checkpoint}
    with pytest.raises(KeyboardInterrupt):
        train_bundle(TASK, material, SETTINGS, **common, report=stop)
    assert not (tmp_path / "mine@1").exists()
    with pytest.raises(TrainingError, match="other settings"):
        train_bundle(TASK, material, replace(SETTINGS, bits=3), **common)
    rest: list[Epoch] = []
    folder, _ = train_bundle(TASK, material, SETTINGS, **common, report=rest.append)
    assert [epoch.number for epoch in rest] == [3]
    assert not checkpoint.exists()
    assert (folder / "model.safetensors").read_bytes() == (trained[0] / "model.safetensors").read_bytes()


def relabelled(folder: Path, subject: int, change: dict[str, str]) -> None:
    path = folder / f"p{subject}_kitchen.csv"
    rows = [line.rpartition(",") for line in path.read_text().splitlines()]
    path.write_text("".join(f"{values},{change.get(label, label)}\n" for values, _, label in rows))


SWAPPED = {"stir": "hammer", "hammer": "stir"}
TEST, VALIDATION, TRAINED = 0, 2, 3
"""Of four people: who does what."""


@pytest.mark.parametrize("subject", [VALIDATION, TRAINED])
def test_a_training_does_not_go_on_with_other_labels(tmp_path, subject):
    folder = write_recordings(tmp_path / "own")
    common = {"name": "mine", "version": 1, "out": tmp_path, "checkpoint": tmp_path / "here.safetensors"}

    def stop(_: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_bundle(TASK, load_material(TASK, folder), SETTINGS, **common, report=stop)
    relabelled(folder, subject, SWAPPED)
    with pytest.raises(TrainingError, match="other settings or data"):
        train_bundle(TASK, load_material(TASK, folder), SETTINGS, **common)


@pytest.mark.parametrize(
    ("subjects", "whose"), [([TEST], "test"), ([VALIDATION], "validation"), ([1, TRAINED], "training")]
)
def test_people_without_labels_are_refused_before_any_training(tmp_path, subjects, whose):
    folder = write_recordings(tmp_path / "own")
    for subject in subjects:
        relabelled(folder, subject, {"stir": "", "hammer": ""})
    with pytest.raises(TrainingError, match=rf"no window of the {whose} subjects p{subjects[0]}.* is labelled"):
        train_bundle(TASK, load_material(TASK, folder), SETTINGS, name="mine", version=1, out=tmp_path)


def test_what_nobody_does_who_trains_is_said(tmp_path, caplog):
    folder = write_recordings(tmp_path / "own")
    relabelled(folder, TEST, {"stir": "whisk"})
    train_bundle(TASK, load_material(TASK, folder), SETTINGS, name="mine", version=1, out=tmp_path)
    assert "nobody who trains does whisk" in caplog.text


def test_without_a_pure_window_there_is_no_score_on_them(tmp_path):
    folder = write_recordings(tmp_path / "own")
    path = folder / f"p{TEST}_kitchen.csv"
    head, *rows = path.read_text().splitlines()
    turns = [f"{row.rpartition(',')[0]},{('stir', 'hammer')[k // 15 % 2]}\n" for k, row in enumerate(rows)]
    path.write_text(head + "\n" + "".join(turns))
    written, bundle = train_bundle(TASK, load_material(TASK, folder), SETTINGS, name="mine", version=1, out=tmp_path)
    assert bundle.manifest.scores.macro_f1_pure is None
    assert "of one activity" not in (written / "README.md").read_text()
    assert load_bundle(written).manifest == bundle.manifest


def test_a_frozen_codebook_stays_byte_for_byte(trained, material, tmp_path):
    """Devices in the field go on as they are: the better network has their digest."""
    book = trained[1].codebook
    settings = replace(SETTINGS, codebook=book, network="cnn", fit=replace(SETTINGS.fit, seed=7, epochs=2))
    folder, bundle = train_bundle(TASK, material, settings, name="mine", version=2, out=tmp_path)
    assert (folder / "codebook.bin").read_bytes() == (trained[0] / "codebook.bin").read_bytes()
    assert bundle.codebook.short_digest == book.short_digest
    assert bundle.manifest.training["quantizer"] == "kept codebook"
    assert bundle.manifest.model_sha256 != trained[1].manifest.model_sha256


def test_a_frozen_codebook_stays_even_with_other_training_data(trained, tmp_path):
    other = load_material(TASK, write_recordings(tmp_path / "other", subjects=3, seed=5))
    settings = replace(SETTINGS, codebook=trained[1].codebook, fit=replace(SETTINGS.fit, epochs=1))
    _, bundle = train_bundle(TASK, other, settings, name="mine", version=3, out=tmp_path / "runs")
    assert bundle.codebook == trained[1].codebook


def test_a_codebook_of_another_rate_cannot_be_kept(trained, material, tmp_path):
    book = replace(trained[1].codebook, rate_hz=25.0)
    with pytest.raises(TrainingError, match="rate"):
        train_bundle(TASK, material, replace(SETTINGS, codebook=book), name="mine", version=2, out=tmp_path)


@pytest.mark.parametrize("quantizer", ["linear", "mu-law", "gamma-paper"])
def test_other_quantizers_make_bundles_too(material, tmp_path, quantizer):
    settings = replace(SETTINGS, quantizer=quantizer, bits=5, fit=replace(SETTINGS.fit, epochs=1))
    _, bundle = train_bundle(TASK, material, settings, name="other", version=1, out=tmp_path)
    assert bundle.codebook.bits == 5
    assert load_bundle("other", (tmp_path,)).manifest.training["quantizer"] == quantizer


def test_refit_uses_the_validation_subjects_too(material, tmp_path):
    epochs: list[Epoch] = []
    settings = replace(SETTINGS, refit=True, fit=replace(SETTINGS.fit, epochs=2))
    train_bundle(TASK, material, settings, name="mine", version=1, out=tmp_path, report=epochs.append)
    assert [epoch.validation is None for epoch in epochs] == [False, False, True, True]
    assert load_bundle(tmp_path / "mine@1").manifest.training["refit_epochs"] == 2


def test_the_reference_makes_no_bundle(material, tmp_path):
    with pytest.raises(TrainingError, match="codebook"):
        train_bundle(TASK, material, replace(SETTINGS, quantizer="none"), name="x", version=1, out=tmp_path)


def test_a_version_is_refused_before_any_training(trained, material):
    folder, _, _ = trained
    with pytest.raises(BundleError, match="exists"):
        train_bundle(TASK, material, SETTINGS, name="mine", version=1, out=folder.parent)


def test_too_few_subjects(tmp_path):
    few = load_material(TASK, write_recordings(tmp_path / "few", subjects=2))
    with pytest.raises(TrainingError, match="a subject each"):
        train_bundle(TASK, few, SETTINGS, name="mine", version=1, out=tmp_path)


def test_a_folder_without_recordings(tmp_path):
    (tmp_path / "readme.txt").write_text("nothing here")
    with pytest.raises(DatasetError):
        load_material(TASK, tmp_path)


def test_recordings_without_a_label(tmp_path):
    for file in write_recordings(tmp_path / "plain").iterdir():
        file.write_text("\n".join(line.rpartition(",")[0] for line in file.read_text().splitlines()))
    with pytest.raises(DatasetError, match="no recording is labelled; training needs a column label"):
        load_material(TASK, tmp_path / "plain")


def test_splits_keep_subjects_apart():
    for n in range(3, 30):
        subjects = [f"s{i:02d}" for i in range(n)]
        train, validation, test = split(TASK, subjects)
        assert sorted([*train, *validation, *test]) == subjects
        assert train
        assert validation
        assert test


def test_manifest_is_plain_json(trained):
    text = (trained[0] / "manifest.json").read_text(encoding="utf-8")
    assert json.loads(text)["name"] == "mine"
    assert str(Path.home()) not in text


@pytest.mark.parametrize(("rate_hz", "adc_bits", "acc_g"), [(10.0, 8, 2.0), (25.0, 14, 4.0), (200.0, 16, 16.0)])
def test_any_rate_full_scale_and_adc(recordings, tmp_path, rate_hz, adc_bits, acc_g):
    task = replace(TASK, rate_hz=rate_hz, adc_bits=adc_bits, acc_g=acc_g, stride_s=0.5)
    fit = FitSettings(epochs=1, batch=8, patience=0)
    _, bundle = train_bundle(
        task, load_material(task, recordings), replace(SETTINGS, fit=fit), name="mine", version=1, out=tmp_path
    )
    assert bundle.sensor.adc_bits == adc_bits
    assert bundle.sensor.lsb[0] == acc_g / 2 ** (adc_bits - 1)
    assert bundle.manifest.window == round(rate_hz)
    scores = bundle.manifest.scores
    assert scores is not None
    assert 0 < scores.payload_bits < scores.all_in_bits


@pytest.mark.parametrize("quantizer", ["gamma", "lsq", "thresholds"])
def test_a_weight_on_the_rate_buys_bits(material, tmp_path, quantizer):
    bits = []
    for version, weight in enumerate((0.0, 3.0), start=1):
        fit = replace(SETTINGS.fit, rate_weight=weight, epochs=8)
        settings = replace(SETTINGS, quantizer=quantizer, fit=fit)
        _, bundle = train_bundle(TASK, material, settings, name="mine", version=version, out=tmp_path)
        assert bundle.manifest.training["rate_weight"] == weight
        bits.append(bundle.manifest.scores.payload_bits)
    assert bits[1] < 0.8 * bits[0]


@pytest.mark.parametrize("quantizer", ["linear", "mu-law", "lloyd-max", "none"])
def test_a_rate_cannot_be_learned_by_what_does_not_learn(material, quantizer):
    settings = replace(SETTINGS, quantizer=quantizer, fit=replace(SETTINGS.fit, rate_weight=0.1))
    with pytest.raises(TrainingError, match="learns: gamma, lsq or thresholds"):
        fit_once(TASK, material, settings, ["p0", "p1"], ["p2"])


def test_the_curve_starts_about_the_median(material):
    crops = Crops(material.of(material.subjects), length=20, stride=2, classes=2, augment=Augment())
    curve = make_quantizer(SETTINGS, TASK.sensor(material.channels), 20.0, crops)
    assert torch.allclose(curve.centre, crops.values().median(dim=0).values, atol=1e-4)
