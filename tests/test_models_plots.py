"""Pictures of what was learned."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from models.plots import curve_picture
from quantization.baselines import linear
from quantization.imu import ACC


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_staircase_runs_across_its_picture(tmp_path, bits):
    path = curve_picture(linear(ACC, bits, 50.0, [8.0] * 3), tmp_path / "curve.png")
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    coloured = (np.ptp(pixels, axis=2) > 60).any(axis=0)
    assert coloured.mean() > 0.7
