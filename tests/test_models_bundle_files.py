"""Bundles as folders, of whichever kind: what is written is what is read, nothing else is, and each is found."""

import errno
import hashlib
import json
import shutil
import struct
from pathlib import Path

import pytest
import torch
from bundle_edits import flipped, with_manifest
from factories import codebook
from torch import Tensor, nn

from models.bundle_files import (
    ACTIVITY,
    CODEBOOK_FILE,
    DETECTOR,
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    MAX_MODEL_BYTES,
    MODEL_FILE,
    SHIPPED,
    Format,
    ManifestBase,
    bundle_folders,
    find_bundle,
    network_bytes,
    next_version,
    read_files,
    said_format,
    says_detector,
    write_files,
)
from quantization.codebook import Codebook
from quantization.errors import BundleError

torch.set_num_threads(1)


def network(seed: int = 0) -> nn.Module:
    """Small, with batch statistics and their count, an integer."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def write(
    folder: Path,
    name: str = "tiny",
    version: int = 1,
    *,
    kind: Format = ACTIVITY,
    model: bytes | None = None,
    book: Codebook | None = None,
) -> Path:
    model, book = model or network_bytes(network()), book or codebook()
    manifest = ManifestBase(
        format=kind,
        name=name,
        version=version,
        created="2026-01-01T00:00:00Z",
        codebook_sha256=book.digest.hex(),
        model_sha256=hashlib.sha256(model).hexdigest(),
    )
    return write_files(folder, manifest, book, model, "# A card: γ\n")


def read(folder: Path) -> tuple[ManifestBase, Codebook, dict[str, Tensor]]:
    return read_files(folder, ManifestBase)


def refusal(folder: Path) -> str:
    """What is said of a bundle, which must be named."""
    with pytest.raises(BundleError) as caught:
        read(folder)
    assert str(folder) in str(caught.value)
    return str(caught.value)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write(tmp_path / "bundles")


def test_what_is_written_is_what_is_read(bundle):
    assert bundle.name == "tiny@1"
    assert sorted(path.name for path in bundle.iterdir()) == [
        "README.md", "codebook.bin", "codebook.json", "manifest.json", "model.safetensors",
    ]  # fmt: skip
    assert (bundle / "README.md").read_text(encoding="utf-8") == "# A card: γ\n"
    manifest, book, tensors = read(bundle)
    assert (manifest.reference, manifest.format) == ("tiny@1", ACTIVITY)
    assert book == codebook()
    expected = network().state_dict()
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_a_network_can_be_stored_with_shorter_numbers(tmp_path):
    short = network_bytes(network(), torch.float16)
    _, _, tensors = read(write(tmp_path, model=short))
    assert {name: tensor.dtype for name, tensor in tensors.items()} == {
        "0.weight": torch.float16,
        "0.bias": torch.float16,
        "1.weight": torch.float16,
        "1.bias": torch.float16,
        "1.running_mean": torch.float16,
        "1.running_var": torch.float16,
        "1.num_batches_tracked": torch.int64,
    }


def test_one_that_was_never_written_whole_takes_no_number(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space"):
            write(tmp_path)
    assert bundle_folders(tmp_path, None) == []
    assert next_version([tmp_path], "tiny") == 1
    assert [path.name for path in write(tmp_path).parent.iterdir()] == ["tiny@1"]


def test_a_version_is_never_overwritten(bundle):
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    with pytest.raises(BundleError, match=r"tiny@1 exists.*next number"):
        write(bundle.parent, model=network_bytes(network(1)))
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


# -- what is damaged --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [CODEBOOK_FILE, MODEL_FILE])
def test_any_flipped_byte_is_refused(bundle, file):
    path = bundle / file
    data = path.read_bytes()
    for at in [*range(0, len(data), max(1, len(data) // 60)), len(data) - 1]:
        for change in (1, 0x80):
            path.write_bytes(flipped(data, at, change))
            refusal(bundle)
    path.write_bytes(data)
    read(bundle)


@pytest.mark.parametrize("file", [CODEBOOK_FILE, MODEL_FILE, MANIFEST_FILE])
@pytest.mark.parametrize("damage", ["absent", "empty", "half", "longer", "folder"])
def test_damaged_files_are_refused(bundle, file, damage):
    path = bundle / file
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "absent":
        path.write_bytes({"empty": b"", "half": data[: len(data) // 2], "longer": data + b"x"}[damage])
    refusal(bundle)


@pytest.mark.parametrize("text", [b"", b"null", b"[]", b"\xff", b"[" * 100_000, b'{"labels":' * 5000])
def test_manifests_that_are_none(bundle, text):
    (bundle / MANIFEST_FILE).write_bytes(text)
    refusal(bundle)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "gammawear-bundle-2"},
        {"name": "../../etc"},
        {"name": "Tiny"},
        {"name": "t" * 33},
        {"version": 0},
        {"version": 10**9},
        {"created": None},
        {"colour": "red"},
        {"codebook_sha256": None},
        {"model_sha256": None},
    ],
    ids=str,
)
def test_a_manifest_is_read_strictly(bundle, change):
    (field,) = change
    assert f"{MANIFEST_FILE}: {field}: " in refusal(with_manifest(bundle, change))


@pytest.mark.parametrize("digest", ["codebook_sha256", "model_sha256"])
@pytest.mark.parametrize("value", ["", "00" * 32])
def test_parts_without_the_digest_of_the_manifest_are_refused(bundle, digest, value):
    assert "not the one that the manifest names" in refusal(with_manifest(bundle, {digest: value}))


@pytest.mark.parametrize("file", [CODEBOOK_FILE, MODEL_FILE])
def test_another_bundles_parts_are_refused(bundle, tmp_path, file):
    other = write(tmp_path / "others", model=network_bytes(network(1)), book=codebook(curved=False))
    shutil.copy(other / file, bundle / file)
    said = refusal(bundle)
    assert file in said
    assert "not the one that the manifest names" in said


def test_a_pickle_is_not_a_model_even_if_the_manifest_names_it(tmp_path):
    folder = write(tmp_path, model=b"\x80\x04cos\nsystem\n(S'false'\ntR.")
    assert "not the one" not in refusal(folder)


@pytest.mark.parametrize(("dtype", "bits"), [("F8_E8M0", 8), ("F6_E2M3", 6), ("F4", 4), ("I128", 128)])
def test_numbers_that_torch_does_not_have_are_refused(tmp_path, dtype, bits):
    size = bits  # bytes of eight numbers
    header = json.dumps({"0.weight": {"dtype": dtype, "shape": [8], "data_offsets": [0, size]}}).encode()
    folder = write(tmp_path, model=struct.pack("<Q", len(header)) + header + bytes(size))
    assert "not the one" not in refusal(folder)


def test_a_model_that_is_too_large_is_not_read(bundle):
    with (bundle / MODEL_FILE).open("wb") as file:
        file.truncate(MAX_MODEL_BYTES + 1)
    assert f"larger than {MAX_MODEL_BYTES} bytes" in refusal(bundle)


def test_a_manifest_that_is_too_large_is_not_read_to_its_end(bundle):
    path = bundle / MANIFEST_FILE
    whole = path.read_bytes().strip()
    path.write_bytes(whole.rjust(MAX_MANIFEST_BYTES))
    read(bundle)
    path.write_bytes(whole.rjust(MAX_MANIFEST_BYTES + 1))
    refusal(bundle)


# -- finding ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Bundles of both kinds, one that is being written, one that cannot be read, and what is none."""
    for version in (2, 9, 10):
        write(tmp_path, "wrist", version)
        write(tmp_path, "eye", version, kind=DETECTOR)
    write(tmp_path, "lens", kind=DETECTOR)
    (tmp_path / "wrist@11").mkdir()  # its manifest comes last
    (tmp_path / "broken@1").mkdir()
    (tmp_path / "broken@1" / MANIFEST_FILE).write_bytes(b"[" * 100_000)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / MANIFEST_FILE).touch()
    return tmp_path


def test_kinds_are_kept_apart(mixed):
    assert [folder.name for folder in bundle_folders(mixed)] == ["broken@1", "wrist@10", "wrist@2", "wrist@9"]
    assert bundle_folders(mixed, ACTIVITY) == bundle_folders(mixed)
    assert [folder.name for folder in bundle_folders(mixed, DETECTOR)] == ["eye@10", "eye@2", "eye@9", "lens@1"]
    assert bundle_folders(mixed / "absent") == []
    assert find_bundle("eye", [mixed], DETECTOR) == mixed / "eye@10"
    with pytest.raises(BundleError, match="no bundle 'wrist'; known: eye@10, eye@2, eye@9, lens@1; or give the path"):
        find_bundle("wrist", [mixed], DETECTOR)
    with pytest.raises(BundleError, match="known: wrist@10, wrist@2, wrist@9;"):
        find_bundle("eye", [mixed])


def test_both_kinds_are_found_and_listed_if_asked_for(mixed):
    assert find_bundle("wrist", [mixed], None) == mixed / "wrist@10"
    assert find_bundle("eye@2", [mixed], None) == mixed / "eye@2"
    with pytest.raises(BundleError, match=r"no bundle 'leg'; known: eye@10, .*lens@1, wrist@10"):
        find_bundle("leg", [mixed], None)


def test_a_damaged_detector_is_named(mixed):
    manifest = mixed / "lens@1" / MANIFEST_FILE
    manifest.write_bytes(manifest.read_bytes()[:-20])
    for reference in ("lens", "lens@1"):
        with pytest.raises(BundleError, match=rf"{mixed}/lens@1 is damaged: its manifest.json cannot be read"):
            find_bundle(reference, [mixed / "absent", mixed], DETECTOR)
    with pytest.raises(BundleError, match="no bundle 'lens@2'"):
        find_bundle("lens@2", [mixed], DETECTOR)
    write(mixed, "lens", 2, kind=DETECTOR)
    assert find_bundle("lens", [mixed], DETECTOR) == mixed / "lens@2"


@pytest.mark.parametrize(("name", "kind"), [("wrist", ACTIVITY), ("eye", DETECTOR), ("eye", None)])
def test_an_older_version_does_not_stand_in_for_a_damaged_one(mixed, name, kind):
    (mixed / f"{name}@10" / MANIFEST_FILE).write_bytes(b"{")
    with pytest.raises(BundleError, match=rf"{name}@10 is damaged"):
        find_bundle(name, [mixed], kind)
    assert find_bundle(f"{name}@9", [mixed], kind) == mixed / f"{name}@9"


def test_finding_by_name_version_or_folder(mixed, tmp_path_factory):
    second = tmp_path_factory.mktemp("second")
    write(second, "ankle")
    write(second, "wrist", 9)
    search = (mixed, second, mixed / "absent")
    assert find_bundle("wrist", search) == mixed / "wrist@10", "10 is higher than 9"
    assert find_bundle("wrist@9", search) == mixed / "wrist@9", "the folder that was named first"
    assert find_bundle("ankle", search) == second / "ankle@1"
    assert find_bundle(second / "ankle@1", ()) == second / "ankle@1"
    assert find_bundle(str(second / "ankle@1"), ()) == second / "ankle@1"


@pytest.mark.parametrize("reference", ["", "leg", "tiny@2", "tiny@", "@1", "tiny@x", "../tiny@1", "tiny\0", "t" * 300])
def test_what_is_not_there_is_said_with_what_is(bundle, reference):
    with pytest.raises(BundleError, match="known: tiny@1"):
        find_bundle(reference, [bundle.parent])
    with pytest.raises(BundleError, match="known: none"):
        find_bundle(reference, [])


def test_the_next_version(mixed):
    assert next_version([mixed], "wrist") == 12, "a folder without a manifest takes its number, too"
    assert [next_version([mixed], name) for name in ("eye", "lens", "broken", "other")] == [11, 2, 2, 1]
    assert next_version([mixed / "absent"], "wrist") == 1
    assert [next_version([mixed, SHIPPED], name) for name in ("wrist", "wrist6")] == [12, 3], "never one that ships"


def test_what_a_manifest_says_that_it_is(mixed):
    assert said_format(mixed / "wrist@2") == ACTIVITY
    assert said_format(mixed / "lens@1") == DETECTOR
    assert says_detector(mixed / "lens@1")
    path = mixed / "lens@1" / MANIFEST_FILE
    for text in ("", "[]", "null", '{"format": 1}', "{}", "[" * 100_000, json.dumps({"format": [DETECTOR]})):
        path.write_text(text)
        assert said_format(mixed / "lens@1") is None
        assert not says_detector(mixed / "lens@1")
    assert said_format(mixed / "wrist@11") is None
