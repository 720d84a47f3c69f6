"""A detector's network as ONNX, for runtimes without PyTorch. Needs the ``onnx`` extra."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from models.vision.bundle import DetectorBundle
from models.vision.detector import STRIDE, Detector
from quantization.errors import BundleError, FrameError
from quantization.raw import check_size

OPSET: Final = 18


class _Exported(nn.Module):
    """Codes to scores and boxes, so that a runtime has nothing left to do but to find peaks."""

    def __init__(self, network: Detector, bits: int) -> None:
        super().__init__()
        self._network = network
        self._top = float(2**bits - 1)

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        maps = self._network(2 * codes / self._top - 1)
        return torch.sqrt(torch.sigmoid(maps.centres) * torch.sigmoid(maps.quality)), maps.sides


@contextlib.contextmanager
def _without_torchvision() -> Iterator[None]:
    """No word of torchvision's operators being skipped: the network has none."""

    def wanted(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("torchvision is not installed")

    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)


def export_onnx(bundle: DetectorBundle, path: Path, *, width: int, height: int) -> Path:
    """Write the network for frames of one size.

    Input ``codes``: float32 ``[1, 4, height / 2, width / 2]``, the mosaic's planes (:data:`quantization.raw.PLANES`) as
    codes, 0 .. 2^bits − 1. Outputs: ``scores`` ``[1, K, h, w]``, and ``sides`` ``[1, 4, h, w]``, how far left, top,
    right and bottom of a box are from the middle of its cell, in photosites; a cell is 8 photosites wide
    (:func:`models.vision.detector.decode` says how peaks become boxes). Classes, codebook and threshold are in the
    file's metadata.

    Args:
        bundle: what to export.
        path: of the file.
        width: photosites, even.
        height: likewise.

    Raises:
        FrameError: ``size``: no mosaic's.
        BundleError: no file can be there, or onnx or onnxscript is not installed.
    """
    check_size(height, width)
    if path.is_dir() or not path.parent.is_dir():
        raise BundleError(f"{path}: name a file in a folder that exists")
    try:
        import onnx
        import onnxscript  # noqa: F401 - what torch.onnx needs
    except ImportError as error:
        raise BundleError(f"{error.name} is not installed: pip install 'gammawear[onnx]'") from error
    exported = _Exported(bundle.network, bundle.codebook.bits).eval()
    planes = torch.zeros(1, 4, height // 2, width // 2)
    with warnings.catch_warnings(), _without_torchvision():
        warnings.simplefilter("ignore", FutureWarning)  # torch warns of its own insides
        program = torch.onnx.export(
            exported, (planes,), dynamo=True, verbose=False, opset_version=OPSET,
            input_names=["codes"], output_names=["scores", "sides"],
        )  # fmt: skip
    if program is None:
        raise FrameError("size", "nothing was exported")
    model = program.model_proto
    manifest = bundle.manifest
    onnx.helper.set_model_props(
        model,
        {
            "gammawear": manifest.reference,
            "classes": json.dumps(manifest.classes),
            "codebook": bundle.codebook.digest.hex(),
            "bits": str(bundle.codebook.bits),
            "threshold": str(manifest.threshold),
            "stride": str(STRIDE),
            "width": str(width),
            "height": str(height),
        },
    )
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
