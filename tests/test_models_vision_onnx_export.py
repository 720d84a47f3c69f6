"""What ONNX Runtime makes of an exported detector is what PyTorch makes of it."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from camera_stack import untrained_detector

from models.vision.onnx_export import export_onnx
from quantization.errors import FrameError
from quantization.raw import Cfa, to_planes


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("size", [(320, 240), (300, 202)])
def test_both_runtimes_agree(tmp_path, size):
    width, height = size
    bundle = untrained_detector()
    path = export_onnx(bundle, tmp_path / "tiny.onnx", width=width, height=height)
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
