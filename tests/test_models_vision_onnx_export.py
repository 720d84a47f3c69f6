"""What ONNX Runtime makes of an exported detector is what PyTorch makes of it."""

import json
import logging

import numpy as np
import onnxruntime
import pytest
import torch
from camera_stack import untrained_detector

from models.vision.onnx_export import export_onnx
from quantization.errors import BundleError, FrameError
from quantization.raw import Cfa, to_planes


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("size", [(320, 240), (300, 202)])
def test_both_runtimes_agree(tmp_path, size, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("torch"), "handlers", [caplog.handler])  # torch keeps its log to itself
    width, height = size
    bundle = untrained_detector()
    path = export_onnx(bundle, tmp_path / "tiny.onnx", width=width, height=height)
    assert "torchvision" not in caplog.text, "torch says what it skips; none of it is in the network"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    codes = np.random.default_rng(0).integers(0, 16, (height, width), dtype=np.uint8)
    scores, sides = session.run(None, {"codes": to_planes(codes, Cfa.GRBG)[None].astype(np.float32)})
    maps = bundle.maps(codes, Cfa.GRBG)
    wanted = torch.sqrt(torch.sigmoid(maps.centres) * torch.sigmoid(maps.quality))
    np.testing.assert_allclose(scores, wanted.numpy(), atol=1e-5)
    np.testing.assert_allclose(sides, maps.sides.numpy(), rtol=1e-4, atol=1e-3)
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["classes"]) == bundle.manifest.classes
    assert (said["codebook"], said["stride"]) == (bundle.codebook.digest.hex(), "8")


def test_a_size_that_no_mosaic_has_is_refused(tmp_path):
    with pytest.raises(FrameError, match="even"):
        export_onnx(untrained_detector(), tmp_path / "x.onnx", width=321, height=240)


def test_where_no_file_can_be_is_refused_first(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("it was exported"))
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "absent" / "x.onnx", tmp_path / "file" / "x.onnx"):
        with pytest.raises(BundleError, match="name a file in a folder that exists"):
            export_onnx(untrained_detector(), path, width=320, height=240)
