"""Detector bundles: what is saved is what is loaded, nothing else is loaded, and kinds do not mix."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_edits import with_manifest
from factories import tiny_bundle

from gateway.bundles import BundleStore, DetectorStore
from models.bundle import load_bundle
from models.bundle_files import (
    CARD_FILE,
    CODEBOOK_FILE,
    DETECTOR,
    MANIFEST_FILE,
    MODEL_FILE,
    bundle_folders,
)
from models.vision.bundle import (
    SHIPPED,
    DetectionScores,
    DetectorBundle,
    PictureCard,
    assemble,
    load_detector,
    rounded,
    save_detector,
)
from models.vision.card import detector_card
from models.vision.detector import Detector, DetectorConfig
from models.vision.fit import JointDetector
from quantization.baselines import linear
from quantization.codebook import Codebook
from quantization.errors import BundleError
from quantization.gamma_image import ImageQuantizer, linear_image
from quantization.imu import ACC
from quantization.raw import CameraSensor, Cfa, RawFrame, lift_for, to_planes

torch.set_num_threads(1)

TINY = DetectorConfig(classes=2, widths=(4, 4, 8, 8), blocks=(1, 1, 1, 1), head=8)
CURVE = ImageQuantizer(4, gamma=[0.3, 0.4, 0.5], white=[0.5, 0.6, 0.7])


def made(
    name: str = "eye", version: int = 1, *, seed: int = 0, book: Codebook | None = None, **more: object
) -> DetectorBundle:
    """Untrained, with batch statistics of its own."""
    torch.manual_seed(seed)
    network = Detector(TINY)
    with torch.no_grad():
        network.centre_head[1].weight.mul_(100)
        network.train()(torch.rand(4, 4, 32, 32))
    manifest = {
        "name": name,
        "version": version,
        "created": "2026-01-01T00:00:00+00:00",
        "classes": ["person", "car"],
        "width": 96,
        "height": 64,
        "threshold": 0.05,
        "data": PictureCard(
            dataset="none", synthetic=True, licence="none", citation="nobody", protocol="untrained", train_pictures=3,
            test_pictures=2,
        ),
        "scores": DetectionScores(
            ap=0.25, ap50=0.5, ap50_by_class={"person": 0.5, "car": None}, ap50_by_light={"1": 0.5, "0.1": 0.125}
        ),
        "training": {"quantizer": "gamma", "epochs": 0},
    }  # fmt: skip
    return assemble(manifest | more, codebook=book or CURVE.image_codebook(), network=rounded(network))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("detectors")
    save_detector(folder, made())
    return folder


@pytest.fixture
def copy(shelf, tmp_path) -> Path:
    """A bundle's folder to damage."""
    return Path(shutil.copytree(shelf / "eye@1", tmp_path / "eye@1"))


def counts(height: int = 64, width: int = 96) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width] / 9
    light = 2000 + 1500 * np.sin(x) * np.cos(y) + np.random.default_rng(0).normal(0, 60, (height, width))
    return light.clip(0, 4095).astype(np.uint16)


def codes_of(book: Codebook, cfa: Cfa = Cfa.RGGB) -> np.ndarray:
    sensor = CameraSensor("p", cfa)
    return RawFrame(counts(), sensor).codes(sensor.lookup(book))


@pytest.mark.parametrize("cfa", Cfa)
def test_what_is_saved_is_what_is_loaded(tmp_path, cfa):
    bundle = made()
    folder = save_detector(tmp_path, bundle)
    assert folder == tmp_path / "eye@1"
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "codebook.bin", "codebook.json", "manifest.json", "model.safetensors",
    ]  # fmt: skip
    loaded = load_detector(folder)
    assert loaded.reference == "eye@1"
    assert loaded.manifest.model_dump_json() == bundle.manifest.model_dump_json()
    assert loaded.codebook == bundle.codebook
    assert not loaded.network.training
    codes = codes_of(bundle.codebook, cfa)
    before, after = bundle.detect(codes, cfa), loaded.detect(codes, cfa)
    assert len(before.scores) > 3
    assert torch.equal(before.labels, after.labels)
    # The loaded network lies in memory in another order, and may add in another.
    assert torch.allclose(before.boxes, after.boxes, atol=1e-3)
    assert torch.allclose(before.scores, after.scores, atol=1e-5)
    assert float(before.scores.min()) >= bundle.manifest.threshold


@pytest.mark.parametrize("cfa", Cfa)
def test_a_bundle_sees_what_training_saw(cfa):
    """Counts through the quantizer and the network; through the lookup, codes and the bundle."""
    bundle = made()
    sensor = CameraSensor("p", cfa)
    frame = RawFrame(counts() // 16, sensor)
    planes = to_planes(frame.counts, cfa)
    light = np.stack([sensor.to_light(p, at) for p, at in zip(planes, cfa.positions, strict=True)])
    with torch.no_grad():
        expected = JointDetector(CURVE, bundle.network).eval()(torch.from_numpy(light)[None])
    lift = lift_for(frame.mean_light)
    assert lift > 0, "a frame of ordinary light shows nothing of lifting"
    found = bundle.maps(frame.codes(sensor.lookup(bundle.codebook, lift)), cfa)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_what_is_less_sure_than_the_threshold_is_left_out():
    everything = made().detect(codes_of(CURVE.image_codebook()), Cfa.RGGB).scores
    threshold = float(everything.sort().values[len(everything) // 2])
    less = made(threshold=threshold).detect(codes_of(CURVE.image_codebook()), Cfa.RGGB).scores
    assert less.tolist() == everything[everything >= threshold].tolist()
    assert 0 < len(less) < len(everything)


def test_the_card_says_what_the_bundle_knows(shelf):
    card = (shelf / "eye@1" / "README.md").read_text(encoding="utf-8")
    digest = made().codebook.short_digest.hex()
    for said in ("eye@1", "person, car", "Synthetic", digest, "96 × 64", "4-bit", "AP 0.250", "× 0.1: 0.125", "nobody"):
        assert said in card, said
    assert "person: AP50 0.500" in card
    assert "car: AP50 not in the test pictures" in card
    assert "nan" not in card
    assert "entropy" not in card


HOSTILE = [
    {"format": "gammawear-detector-2"},
    {"format": "gammawear-bundle-1"},
    {"classes": []},
    {"classes": ["person"]},
    {"classes": ["person", "car", "bus"]},
    {"classes": ["person", "<script>"]},
    {"classes": [f"c{i}" for i in range(65)]},
    {"width": 0},
    {"height": 10**9},
    {"threshold": 0.0},
    {"threshold": 1.0},
    {"threshold": float("nan")},
    {"data": None},
    {"data.train_pictures": 0},
    {"scores": {}},
    {"scores.ap": float("nan")},
    {"network": {}},
    {"network.classes": 3},
    {"network.classes": 1.5},
    {"network.classes": 10**18},
    {"network.widths": [4, 4, 8, 16]},
    {"network.widths": [4, 4, 8, 1e400]},
    {"network.widths": [4, 4, 8, float("nan")]},
    {"network.widths": [10**9] * 4},
    {"network.widths": "4488"},
    {"network.blocks": [1, 1, 1, float("inf")]},
    {"network.blocks": [1, 1, 1, 8]},
    {"network.head": 8.5},
    {"network.head": 10**12},
    {"network.depth": 1},
]


@pytest.mark.parametrize("change", HOSTILE, ids=lambda c: ",".join(f"{k}={str(v)[:24]}" for k, v in c.items()))
def test_hostile_manifests(copy, change):
    with pytest.raises(BundleError):
        load_detector(with_manifest(copy, change))


def test_another_bundles_files_are_refused(copy, tmp_path):
    other = save_detector(tmp_path / "others", made(seed=5, book=linear_image(4)))
    for file in (CODEBOOK_FILE, MODEL_FILE):
        saved = (copy / file).read_bytes()
        shutil.copy(other / file, copy / file)
        with pytest.raises(BundleError, match="manifest names"):
            load_detector(copy)
        (copy / file).write_bytes(saved)


def test_parts_that_do_not_fit_make_no_bundle():
    with pytest.raises(BundleError, match="a codebook for images has red, green, blue"):
        made(book=linear(ACC, 4, 50.0, [8.0] * 3))
    with pytest.raises(BundleError, match="fit each other"):
        made(classes=["person"])


@pytest.fixture
def mixed(tmp_path) -> Path:
    """Bundles of both kinds, one that is being written, and one that cannot be read."""
    for version in (1, 2, 10):
        save_detector(tmp_path, made(version=version, seed=version))
    save_detector(tmp_path, made("lens", book=linear_image(2)))
    tiny_bundle(tmp_path, "wrist", version=3)
    (tmp_path / "eye@11").mkdir()
    (tmp_path / "broken@1").mkdir()
    (tmp_path / "broken@1" / MANIFEST_FILE).write_bytes(b"[" * 100_000)
    return tmp_path


def test_the_other_kind_is_refused(mixed):
    assert load_detector("lens", [mixed]).reference == "lens@1"
    assert load_bundle("wrist", [mixed]).reference == "wrist@3"
    with pytest.raises(BundleError, match="no bundle 'wrist'; known: eye@1, eye@10, eye@2, lens@1"):
        load_detector("wrist", [mixed])
    with pytest.raises(BundleError, match=r"wrist@3.*format"):
        load_detector(mixed / "wrist@3")
    with pytest.raises(BundleError):
        load_bundle("eye", [mixed])
    with pytest.raises(BundleError, match=r"eye@1.*format"):
        load_bundle(mixed / "eye@1")


def test_a_gateway_finds_detectors_by_digest(mixed):
    store = DetectorStore([mixed])
    assert [bundle.reference for bundle in store.serving] == ["eye@10", "lens@1"], "of one codebook, the last version"
    for bundle in store.serving:
        assert store.find(bundle.codebook.short_digest) is bundle
        assert store.find(bundle.codebook.short_digest, bundle.codebook.digest) is bundle
        assert store.find(bundle.codebook.short_digest, bundle.codebook.short_digest + bytes(28)) is None
    assert store.find(b"none") is None
    assert store.damaged == 0, "what cannot be read is reported with the bundles of activities"
    (activity,) = BundleStore([mixed]).serving
    assert activity.reference == "wrist@3"
    assert store.find(activity.codebook.short_digest) is None


def test_a_damaged_detector_does_not_stop_the_others(mixed):
    store = DetectorStore([mixed])
    (mixed / "lens@1" / MODEL_FILE).write_bytes(b"nonsense")
    shutil.rmtree(mixed / "eye@10")
    assert store.reload()
    assert [bundle.reference for bundle in store.serving] == ["eye@2", "lens@1"], "it serves on as it was loaded"
    assert (store.damaged, store.failures) == (1, 1)
    assert not store.reload()


def test_every_shipped_detector_loads_and_looks():
    for folder in bundle_folders(SHIPPED, DETECTOR):
        bundle = load_detector(folder)
        assert bundle.reference == folder.name
        assert bundle.manifest.scores.ap50 > 0.5
        maps = bundle.maps(np.zeros((64, 96), np.uint8), Cfa.RGGB)
        assert all(bool(torch.isfinite(part).all()) for part in maps)


@pytest.mark.parametrize("folder", bundle_folders(SHIPPED, DETECTOR), ids=lambda folder: folder.name)
def test_what_ships_loads_says_what_it_is_and_sees(folder):
    bundle = load_detector(folder)
    assert (folder / CARD_FILE).read_text(encoding="utf-8") == detector_card(bundle)
    assert bundle.manifest.data.licence.startswith(("Apache-2.0", "MIT")), "its weights may be used by anyone"
    codes = np.random.default_rng(0).integers(0, 2**bundle.codebook.bits, (240, 320), dtype=np.uint8)
    assert len(bundle.detect(codes, Cfa.RGGB).scores) <= 100


def test_both_detectors_ship():
    assert [folder.name.split("@")[0] for folder in bundle_folders(SHIPPED, DETECTOR)] == ["bccd", "street"]
