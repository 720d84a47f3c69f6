"""Bundles: what is saved is what is loaded, and nothing else is loaded."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_edits import flipped, with_manifest
from factories import LABELS, codebook, sensor, tiny_bundle
from pydantic import ValidationError

import models
from models.bundle import Bundle, assemble, load_bundle, save_bundle
from models.bundle_files import CODEBOOK_FILE, MANIFEST_FILE, MODEL_FILE, bundle_folders
from models.har import HarConfig, build
from protocol.messages import UNKNOWN
from quantization.errors import BundleError

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    tiny_bundle(folder)
    return folder


@pytest.fixture
def copy(shelf, tmp_path) -> Path:
    """A bundle's folder to damage."""
    return Path(shutil.copytree(shelf / "tiny@1", tmp_path / "tiny@1"))


def some_codes(bundle: Bundle, n: int = 5) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 16, size=(n, bundle.manifest.window, len(bundle.codebook.channels))).astype(np.uint8)


def test_save_and_load(tmp_path):
    torch.manual_seed(1)
    network = build(HarConfig("cnn", 6, 5, 50))
    with torch.no_grad():
        network(torch.rand(4, 50, 6))  # batch statistics travel too
    manifest = json.loads((tiny_bundle(tmp_path / "other"), (tmp_path / "other/tiny@1/manifest.json").read_text())[1])
    for made_by_assemble in ("network", "sensor", "codebook_sha256", "model_sha256"):
        del manifest[made_by_assemble]
    made = assemble(manifest, codebook=codebook(), network=network, sensor=sensor())
    folder = save_bundle(tmp_path, made)
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "codebook.bin", "codebook.json", "manifest.json", "model.safetensors",
    ]  # fmt: skip
    loaded = load_bundle(folder)
    assert loaded.manifest == made.manifest
    assert loaded.codebook == made.codebook
    assert loaded.sensor == made.sensor
    assert loaded.labels == LABELS
    codes = some_codes(made)
    before, after = made.predict(codes), loaded.predict(codes)
    assert np.array_equal(before.probabilities, after.probabilities)
    assert np.array_equal(before.evidence, after.evidence)


def test_prediction(shelf):
    bundle = load_bundle(shelf / "tiny@1")
    said = bundle.predict(some_codes(bundle))
    assert said.probabilities.shape == (5, 5)
    assert said.evidence.shape == (5,)
    assert np.allclose(said.probabilities.sum(axis=1), 1, atol=1e-5)
    alone = bundle.predict(some_codes(bundle)[2:3])
    assert np.allclose(alone.probabilities[0], said.probabilities[2], atol=1e-6)
    assert not bundle.network.training


def test_answers(tmp_path):
    bundle = tiny_bundle(tmp_path, unknown_below=1.5)
    shares = np.array([0.1, 0.6, 0.1, 0.1, 0.1], np.float32)
    assert bundle.answer(shares, 1.5) == (LABELS[1], LABELS[1], pytest.approx(0.6))
    assert bundle.answer(shares, 1.49) == (UNKNOWN, LABELS[1], pytest.approx(0.6))
    assert bundle.accepts_rate(52.4)
    assert bundle.accepts_rate(47.6)
    assert not bundle.accepts_rate(52.6)
    assert not bundle.accepts_rate(47.4)


def test_an_unscored_bundle_is_never_saved(shelf, tmp_path):
    bundle = load_bundle(shelf / "tiny@1")
    unscored = Bundle(bundle.manifest.model_copy(update={"scores": None}), *list(vars(bundle).values())[1:])
    with pytest.raises(BundleError, match="scores"):
        save_bundle(tmp_path, unscored)
    assert not list(tmp_path.iterdir())


def test_a_flipped_byte_of_the_manifest_is_refused_or_changes_nothing_that_must_fit(copy):
    """Its free text has no digest: what must agree with the other files is checked against them."""
    path = copy / MANIFEST_FILE
    data = path.read_bytes()
    for at in range(0, len(data), 3):
        path.write_bytes(flipped(data, at, 1))
        try:
            bundle = load_bundle(copy)
        except BundleError:
            continue
        assert bundle.network.config.channels == 6
        assert len(bundle.labels) == 5


HOSTILE = [
    {"labels": ["A", "A", "B", "C", "D"]},
    {"labels": [*LABELS[:4], "unknown"]},
    {"labels": [*LABELS[:4], "UNKNOWN"]},
    {"labels": [*LABELS[:4], "<script>"]},
    {"labels": list(LABELS[:4])},
    {"labels": [f"l{i}" for i in range(300)]},
    {"labels": "ABCDE"},
    {"format": "gammawear-bundle-2"},
    {"rate_hz": 51.0},
    {"rate_hz": 1e400},
    {"window": 49},
    {"window": 10**12},
    {"stride": 0},
    {"stride": 51},
    {"unknown_below": float("nan")},
    {"unknown_below": "low"},
    {"data": None},
    {"network": {}},
    {"network.kind": "resnet"},
    {"network.kind": "__class__"},
    {"network.kind": ["cnn"]},
    {"network.kind": "cnn"},
    {"network.channels": 10**12},
    {"network.channels": 3},
    {"network.channels": "6"},
    {"network.channels": 6.5},
    {"network.channels": None},
    {"network.classes": 6},
    {"network.classes": 10**18},
    {"network.window": 10**12},
    {"network.window": float("inf")},
    {"network.dropout": 2.0},
    {"network.dropout": float("nan")},
    {"network.dropout": "half"},
    {"network.layers": 10**9},
    {"sensor": {}},
    {"sensor.adc_bits": 60},
    {"sensor.adc_bits": float("inf")},
    {"sensor.lsb": [0.0] * 6},
    {"sensor.channels": ["acc_x"]},
    {"sensor.offset": [10**400] * 6},
]


@pytest.mark.parametrize("change", HOSTILE, ids=lambda c: ",".join(f"{k}={str(v)[:24]}" for k, v in c.items()))
def test_hostile_manifests(copy, change):
    with pytest.raises(BundleError):
        load_bundle(with_manifest(copy, change))


def test_another_bundles_files_are_refused(shelf, copy, tmp_path):
    other = tmp_path / "others"
    tiny_bundle(other, seed=5, book=codebook(curved=False))
    for file in (CODEBOOK_FILE, MODEL_FILE):
        saved = (copy / file).read_bytes()
        shutil.copy(other / "tiny@1" / file, copy / file)
        with pytest.raises(BundleError, match="manifest names"):
            load_bundle(copy)
        (copy / file).write_bytes(saved)
    assert load_bundle(copy).manifest == load_bundle(shelf / "tiny@1").manifest


def test_nothing_in_the_package_unpickles():
    for root in ("models", "quantization", "protocol"):
        for path in (Path(models.__file__).parent.parent / root).rglob("*.py"):
            assert not re.search(r"\bpickle\b|torch\.load\b|torch\.hub\b|allow_pickle=True", path.read_text()), path


def test_labels_of_a_manifest_obey_the_protocol(shelf):
    manifest = load_bundle(shelf / "tiny@1").manifest
    with pytest.raises(ValidationError):
        type(manifest)(**(manifest.model_dump() | {"labels": ["fine", "\n"]}))


def test_every_shipped_bundle_loads_and_predicts():
    for folder in bundle_folders(Path(models.__file__).parent / "bundles"):
        bundle = load_bundle(folder)
        assert bundle.reference == folder.name
        assert bundle.manifest.scores.macro_f1 > 0.5
        codes = np.zeros((2, bundle.manifest.window, len(bundle.codebook.channels)), np.uint8)
        assert np.isfinite(bundle.predict(codes).probabilities).all()
