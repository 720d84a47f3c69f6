"""A picture for people from a code mosaic: levels, colours, brightness, boxes. The detector never sees it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from protocol.messages import FoundBox
from quantization.codebook import Codebook
from quantization.exposure import demosaiced
from quantization.raw import PLANES, Cfa, CodeMosaic, sites

JPEG_QUALITY: Final = 75
LONGEST_SIDE: Final = 640
"""Pixels of a preview; larger frames are made smaller."""
_MIDDLE: Final = 0.18
"""Mean brightness of a preview in linear light: the grey card's."""
_GAMMA: Final = 1 / 2.2
_BOX_COLOURS: Final = ("#ffb000", "#1fc8ff", "#ff5fa2", "#7dff6a")


@dataclass(frozen=True)
class Preview:
    """What screens show of a frame.

    Args:
        jpeg: with boxes.
        plain_bytes: of the same picture as JPEG of quality 75 at the frame's size, without boxes.
    """

    jpeg: bytes
    plain_bytes: int


def render(
    codes: CodeMosaic,
    cfa: Cfa,
    codebook: Codebook,
    boxes: Sequence[FoundBox],
    *,
    classes: Sequence[str],
    size: tuple[int, int],
) -> Preview:
    """A preview of ``[H, W]`` codes.

    Args:
        codes: of the frame.
        cfa: of the frame.
        codebook: of the codes.
        boxes: in photosites of the sensor.
        classes: that the detector knows; each has a colour of its own, as far as there are so many.
        size: width and height of the sensor, photosites.
    """
    picture = Image.fromarray(develop(codes, cfa, codebook))
    plain_bytes = len(_jpeg(picture))
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    draw = ImageDraw.Draw(picture)
    across, down = picture.width / size[0], picture.height / size[1]
    for one in boxes:
        colour = _BOX_COLOURS[classes.index(one.label) % len(_BOX_COLOURS)]
        left, top, right, bottom = one.box[0] * across, one.box[1] * down, one.box[2] * across, one.box[3] * down
        draw.rectangle((left, top, right, bottom), outline=colour, width=2)
        draw.text((left + 3, max(0, top - 11)), f"{one.label} {one.score:.0%}", fill=colour)
    return Preview(_jpeg(picture), plain_bytes)


def develop(codes: CodeMosaic, cfa: Cfa, codebook: Codebook) -> NDArray[np.uint8]:
    """``[H, W, 3]`` 8-bit picture of ``[H, W]`` codes.

    Bilinear demosaicing, white balance by the grey-world assumption, brightness by the mean.
    """
    behind = np.empty(codes.shape, dtype=np.float32)
    for plane, position in enumerate(cfa.positions):
        levels = codebook.levels[PLANES[plane]].astype(np.float32)
        behind[sites(position)] = levels[codes[sites(position)]]
    light = demosaiced(behind, cfa).clip(0, 1)
    means = light.mean(axis=(0, 1)).clip(1e-4, None)
    balanced = light * (_MIDDLE / means)
    developed: NDArray[np.uint8] = np.rint(255 * balanced.clip(0, 1) ** _GAMMA).astype(np.uint8)
    return developed


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
