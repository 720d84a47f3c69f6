from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from camera_stack import save_untrained
from factories import codebook, tiny_bundle
from test_gateway_support import Rig, Wearer

from gateway.bundles import BundleStore, DetectorStore
from models.bundle_files import MANIFEST_FILE, MODEL_FILE


def test_the_highest_version_of_a_codebook_serves(tmp_path: Path) -> None:
    old, new = tiny_bundle(tmp_path), tiny_bundle(tmp_path, version=10, seed=1)
    other = tiny_bundle(tmp_path, "other", book=codebook(curved=False))
    store = BundleStore([tmp_path])
    assert [bundle.reference for bundle in store.serving] == ["other@1", "tiny@10"]
    for digest in (None, old.codebook.digest):
        found = store.find(old.codebook.short_digest, digest)
        assert found is not None
        assert found.reference == new.reference
    assert store.find(other.codebook.short_digest, old.codebook.digest) is store.serving[0]
    assert store.find(old.codebook.short_digest, old.codebook.short_digest + bytes(28)) is None
    assert store.find(b"none") is None


def test_the_first_folder_serves_a_codebook_that_two_have(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shipped, runs = tmp_path / "shipped", tmp_path / "runs"
    tiny_bundle(shipped, version=2)
    tiny_bundle(runs, "better", seed=1)
    with caplog.at_level("INFO"):
        assert [bundle.reference for bundle in BundleStore([runs, shipped]).serving] == ["better@1"]
    assert "tiny@2 does not serve: better@1 has the same codebook" in caplog.messages
    tiny_bundle(runs, version=3, seed=2)
    assert [bundle.reference for bundle in BundleStore([shipped, runs]).serving] == ["tiny@3"]


def test_reload_finds_what_came_and_went_and_keeps_the_rest(tmp_path: Path) -> None:
    tiny_bundle(tmp_path)
    store = BundleStore([tmp_path, tmp_path / "absent"])
    (first,) = store.serving
    assert not store.reload()
    tiny_bundle(tmp_path, "other", book=codebook(curved=False))
    assert store.reload()
    assert len(store) == 2
    assert store.serving[1] is first
    shutil.rmtree(tmp_path / "other@1")
    assert store.reload()
    assert store.serving == [first]


def test_a_damaged_bundle_does_not_stop_the_others(tmp_path: Path) -> None:
    tiny_bundle(tmp_path)
    tiny_bundle(tmp_path, "broken", book=codebook(curved=False))
    (tmp_path / "broken@1" / MODEL_FILE).write_bytes(b"nonsense")
    store = BundleStore([tmp_path])
    assert [bundle.reference for bundle in store.serving] == ["tiny@1"]
    assert (store.damaged, store.failures) == (1, 1)
    assert not store.reload()
    assert store.failures == 1  # looked at once, not at every poll
    (tmp_path / "tiny@1" / MODEL_FILE).write_bytes(b"damaged while it serves")
    assert store.reload()
    assert [bundle.reference for bundle in store.serving] == ["tiny@1"]
    assert (store.damaged, store.failures) == (2, 2)


def test_a_reload_does_not_drop_a_stream(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    rig = Rig(tmp_path)
    wearer = Wearer(bundle, samples=30)
    wearer.send(rig, 3)
    tiny_bundle(tmp_path, version=2, seed=1)
    assert rig.pipeline.bundles.reload()
    rig.pipeline.bundles_changed()
    wearer.send(rig, 3)
    assert [window.bundle.reference for window in rig.windows] == ["tiny@1"] * 2 + ["tiny@2"] * 4
    assert rig.pipeline.flushes == {}
    shutil.rmtree(tmp_path / "tiny@1")
    shutil.rmtree(tmp_path / "tiny@2")
    assert rig.pipeline.bundles.reload()
    rig.pipeline.bundles_changed()
    wearer.send(rig, 1)
    assert rig.pipeline.flushes == {"removed": 1}
    assert rig.pipeline.refusals.packets == {"unknown_codebook": 1}


def test_a_detector_whose_manifest_is_torn_goes_on_as_it_was_loaded(tmp_path: Path) -> None:
    save_untrained(tmp_path)
    store = DetectorStore((tmp_path,))
    (served,) = store.serving
    manifest = tmp_path / "tiny@1" / MANIFEST_FILE
    manifest.write_bytes(manifest.read_bytes()[:100])
    assert store.reload()
    assert (store.serving, store.damaged) == ([served], 1)
    shutil.rmtree(tmp_path / "tiny@1")
    assert store.reload()
    assert (store.serving, store.damaged) == ([], 0)
