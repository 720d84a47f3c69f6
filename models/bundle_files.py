"""Bundles as folders: what those of activities and those of detectors share.

A bundle is a folder ``name@version`` with ``manifest.json``, ``codebook.bin`` and ``model.safetensors``; for people,
``codebook.json`` and ``README.md``, its model card. The manifest says of which kind it is (``format``) and holds the
SHA-256 of codebook and model; nothing is loaded that does not match, and nothing that is loaded can run code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError

from quantization.codebook import Codebook
from quantization.errors import BundleError, CodebookError, SensorError, TrainingError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

SHIPPED: Final = Path(__file__).parent / "bundles"
"""The bundles of activities that come with the package."""
SHIPPED_DETECTORS: Final = Path(__file__).parent / "vision" / "bundles"
"""The detector bundles that come with the package."""
CODEBOOK_FILE: Final = "codebook.bin"
MODEL_FILE: Final = "model.safetensors"
MANIFEST_FILE: Final = "manifest.json"
CARD_FILE: Final = "README.md"
MAX_MODEL_BYTES: Final = 64 * 2**20
"""Networks here have ten thousand to three million parameters; a file beyond this is not one."""
MAX_MANIFEST_BYTES: Final = 4 * 2**20
_REFERENCE: Final = re.compile(r"([a-z0-9][a-z0-9_-]{0,31})(?:@([0-9]{1,6}))?")

Format = Literal["gammawear-bundle-1", "gammawear-detector-1"]
ACTIVITY: Final = "gammawear-bundle-1"
DETECTOR: Final = "gammawear-detector-1"


class Strict(BaseModel):
    """What is in a manifest and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ManifestBase(Strict):
    """What every ``manifest.json`` has."""

    format: Format
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
    version: Annotated[int, Field(ge=1, lt=10**6)]
    created: str
    codebook_sha256: str
    model_sha256: str

    @property
    def reference(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"


class _Named(ManifestBase):
    """What both kinds of manifest have; the rest is not looked at."""

    model_config = ConfigDict(extra="ignore")


M = TypeVar("M", bound=ManifestBase)


def network_bytes(network: nn.Module, dtype: torch.dtype | None = None) -> bytes:
    """``model.safetensors`` of a network; its numbers that are no integers as ``dtype``, if one is given."""
    from safetensors.torch import save as save_tensors

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    if dtype is not None:
        tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}
    return save_tensors(tensors)


def read_files(folder: Path, manifest: type[M]) -> tuple[M, Codebook, dict[str, Tensor]]:
    """Manifest, codebook and tensors of a bundle, checked against each other.

    Raises:
        BundleError: damaged, or the parts are not those that the manifest names.
    """
    found = read_manifest(folder, manifest)
    codebook = read_codebook(folder, found)
    with naming(folder):
        model_file = folder / MODEL_FILE
        if model_file.stat().st_size > MAX_MODEL_BYTES:
            raise BundleError(f"{model_file} is larger than {MAX_MODEL_BYTES} bytes")
        model = model_file.read_bytes()
        if hashlib.sha256(model).hexdigest() != found.model_sha256:
            raise BundleError(f"{model_file} is not the one that the manifest names")
        return found, codebook, _tensors(model, model_file)


def _tensors(model: bytes, file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load

    try:
        return load(model)
    except (KeyError, ValueError) as error:  # the format has types of numbers that torch has not
        raise BundleError(f"{file} has tensors that PyTorch cannot hold: {error}") from error


def read_manifest(folder: Path, manifest: type[M]) -> M:
    """The manifest alone.

    Raises:
        BundleError: it cannot be read, or says what no manifest says.
    """
    with naming(folder), (folder / MANIFEST_FILE).open("rb") as file:
        return manifest.model_validate_json(file.read(MAX_MANIFEST_BYTES))


def read_codebook(folder: Path, manifest: ManifestBase) -> Codebook:
    """The codebook of a bundle, without torch.

    Raises:
        BundleError: it cannot be read, or is not the one that the manifest names.
    """
    with naming(folder):
        codebook = Codebook.load(folder / CODEBOOK_FILE)
    if codebook.digest.hex() != manifest.codebook_sha256:
        raise BundleError(f"{folder / CODEBOOK_FILE} is not the one that the manifest names")
    return codebook


def load_codebook(reference: str | Path, search: Iterable[Path], kind: Format | None) -> Codebook:
    """The codebook of a bundle, found as by :func:`find_bundle`. Neither network nor scores are looked at.

    Raises:
        BundleError: absent, damaged, or not the codebook that the manifest names.
    """
    folder = find_bundle(reference, search, kind)
    return read_codebook(folder, read_manifest(folder, _Named))


@contextlib.contextmanager
def naming(folder: Path) -> Iterator[None]:
    """Whatever is wrong with the parts of a bundle, say which bundle it is."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise BundleError(f"{folder / MANIFEST_FILE}: {where}: {first['msg']}") from error
    except (OSError, SafetensorError, RuntimeError, TypeError, CodebookError, SensorError) as error:
        raise BundleError(f"{folder}: {error}") from error


def check_before_training(manifest: type[ManifestBase], fields: Mapping[str, Any]) -> None:
    """Refuse what no manifest could say after the training.

    Args:
        manifest: of the kind of bundle.
        fields: of it, without the digests.

    Raises:
        TrainingError: a field that cannot be; names the first.
    """
    digest = "0" * 64
    try:
        manifest.model_validate({**fields, "codebook_sha256": digest, "model_sha256": digest})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        reason = first["msg"]
        if where == "name":
            reason = "up to 32 of a-z 0-9 _ -, the first a letter or a digit; give another --name"
        raise TrainingError(f"no bundle can have the {where} {repr(first['input'])[:60]}: {reason}") from error


def write_files(folder: Path, manifest: ManifestBase, codebook: Codebook, model: bytes, card: str) -> Path:
    """Write ``folder/name@version`` and return it.

    Args:
        folder: of bundles.
        manifest: with the digests of codebook and model.
        codebook: of the bundle.
        model: :func:`network_bytes`.
        card: Markdown.

    Raises:
        BundleError: that version exists already.
    """
    target = folder / manifest.reference
    if target.exists():
        raise BundleError(f"{target} exists; a version is never overwritten, give the next number")
    # Under another name until it is whole: none is ever seen half-written, and what is left of one takes no number.
    partial = folder / f".{manifest.reference}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    codebook.save(partial / CODEBOOK_FILE)
    (partial / CARD_FILE).write_text(card, encoding="utf-8")
    (partial / MODEL_FILE).write_bytes(model)
    (partial / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    partial.replace(target)
    return target


def find_bundle(reference: str | Path, search: Iterable[Path], kind: Format | None = ACTIVITY) -> Path:
    """The folder of a bundle, by folder, by ``name@version`` or by ``name`` (its highest version).

    Args:
        reference: one of these.
        search: folders of bundles.
        kind: of bundles that are known by name; None: both.

    Raises:
        BundleError: there is none, and the message lists what there is; or its manifest cannot be read.
    """
    as_path = Path(reference)
    with contextlib.suppress(OSError):  # a name that no file could have is not a path
        if (as_path / MANIFEST_FILE).is_file():
            return as_path
    there = [folder for root in search for folder in bundle_folders(root, None)]
    said = {folder: said_format(folder) for folder in there}
    # One that cannot be read may be what is meant: an older version in its place would surprise.
    fitting = [
        folder
        for folder in there
        if str(reference) in (folder.name, folder.name.split("@")[0]) and (kind is None or said[folder] in (kind, None))
    ]
    if fitting:
        found = max(fitting, key=_version)
        if said[found] is None:
            raise BundleError(f"{found} is damaged: its {MANIFEST_FILE} cannot be read, or does not say what it is")
        return found
    wanted = (ACTIVITY, DETECTOR) if kind is None else (kind,)
    names = ", ".join(dict.fromkeys(folder.name for folder in there if said[folder] in wanted)) or "none"
    raise BundleError(f"no bundle {str(reference)!r}; known: {names}; or give the path of a bundle's folder")


def _version(folder: Path) -> int:
    return int(folder.name.split("@")[1])


def bundle_folders(root: Path, kind: Format | None = ACTIVITY) -> list[Path]:
    """The folders ``name@version`` in ``root`` that hold a manifest of that kind, sorted; empty where there is none.

    A manifest that cannot be read counts as one of activities, so that somebody reports it. None takes both kinds.
    """
    if not root.is_dir():
        return []
    return sorted(
        folder
        for folder in root.iterdir()
        if "@" in folder.name
        and _REFERENCE.fullmatch(folder.name)
        and (folder / MANIFEST_FILE).is_file()
        and (kind is None or says_detector(folder) == (kind == DETECTOR))
    )


def next_version(roots: Iterable[Path], name: str) -> int:
    """The number after the highest that a folder of that name in any of ``roots`` has, whatever is in it."""
    entries = [one.name for root in roots if root.is_dir() for one in root.iterdir()]
    matches = [match for one in entries if (match := _REFERENCE.fullmatch(one))]
    return max((int(match[2]) for match in matches if match[1] == name and match[2]), default=0) + 1


def checkpoint_of(root: Path, name: str, version: int) -> Path:
    """Where training keeps its state until there is a bundle."""
    return root / f".{name}@{version}.safetensors"


def says_detector(folder: Path) -> bool:
    """Whether a bundle's manifest says that it is of a detector; False if it cannot be read."""
    return said_format(folder) == DETECTOR


def said_format(folder: Path) -> str | None:
    """What a bundle's manifest says that it is; None if it cannot be read."""
    try:
        with (folder / MANIFEST_FILE).open("rb") as file:
            document = json.loads(file.read(MAX_MANIFEST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    said = document.get("format") if isinstance(document, dict) else None
    return said if isinstance(said, str) else None
