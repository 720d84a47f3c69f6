"""A camera node: exposures in, chunks out. Synchronous; but for a frame's mean light, integers alone behind the ADC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from device_emulator.camera.source import Exposure, FrameSource
from device_emulator.device import MAX_ERROR_CHARS
from protocol.frame import CHUNK_PAYLOAD_BYTES, SEQUENCE_MODULUS, frame_chunks
from protocol.messages import Config, SourceKind, Status, Truth
from protocol.topics import check_device_id
from quantization.codebook import Codebook
from quantization.errors import CodebookError, GammawearError
from quantization.raw import CameraSensor, CodeMosaic, check_images, lift_for

GATE_CELLS: Final = 16
"""Photosites along the side of a block whose mean code the motion gate compares."""
GATE_SHIFT: Final = 0.75 / 16
"""A block moves if its mean changes by more than this share of all codes: noise alone changes the mean of 256 codes by
a tenth of that."""
GATE_SHARE: Final = 0.01
"""A frame is sent if more than this share of its blocks moves."""
GATE_REST_S: Final = 10.0
"""A gated camera sends a frame at least so often: nobody should take a still scene for a dead node."""


@dataclass(frozen=True)
class FrameEmission:
    """What one exposure makes the node send.

    Args:
        chunks: empty if the motion gate held the frame back, or it could not be read.
        truth: beside it, where it is known.
        due_ms: when the exposure was taken: milliseconds since the start, not wrapped.
    """

    chunks: tuple[bytes, ...]
    truth: Truth | None
    due_ms: int


class CameraNode:
    """One camera.

    Args:
        device_id: 1 to 32 of ``A-Z a-z 0-9 _ -``.
        source: of exposures.
        codebook: for images, to begin with.
        fps: frames a second, above 0.
        gated: hold back frames in which nothing moves.
        chunk_bytes: most payload bytes of a chunk.
        compress: entropy code; without it codes are packed plainly, as by a board that is too small for the coder.

    Attributes:
        frames_made: sent or not; those that were held back are not among them.
        held_back: by the motion gate.
        unreadable: exposures that the source could not give.
        revision: goes up whenever :meth:`status` has something new to say, beyond its counters.

    Raises:
        CodebookError: the codebook is not one for images.
    """

    def __init__(
        self,
        device_id: str,
        source: FrameSource,
        codebook: Codebook,
        *,
        fps: float = 2.0,
        gated: bool = False,
        chunk_bytes: int = CHUNK_PAYLOAD_BYTES,
        compress: bool = True,
    ) -> None:
        if not 0 < fps <= 1000:
            raise ValueError(f"{fps} frames a second")
        if compress:
            from quantization import plane_coder  # noqa: F401 - may compile for seconds: now, not at the first frame
        self.device_id: Final = check_device_id(device_id)
        self.source: Final = source
        check_images(codebook)
        self.codebook = codebook
        self._fps = fps
        self._gated = gated
        self._chunk_bytes = chunk_bytes
        self._compress = compress
        self._lookups: dict[tuple[CameraSensor, bytes, int], NDArray[np.uint8]] = {}
        self._lift: int | None = None
        self._sent: tuple[bytes, int, NDArray[np.int64], int] | None = None
        self._config_error: str | None = None
        self._frame_error: str | None = None
        self._exposures = 0
        self.frames_made = 0
        self.held_back = 0
        self.unreadable = 0
        self.revision = 0

    @property
    def is_camera(self) -> bool:
        """Yes."""
        return True

    @property
    def source_kind(self) -> SourceKind:
        """Where its frames come from."""
        return self.source.kind

    @property
    def packet_period_s(self) -> float:
        """Seconds between two exposures."""
        return 1.0 / self._fps

    @property
    def error(self) -> str | None:
        """Why the last configuration was refused, or the last exposure could not be sent; None after good ones."""
        return self._config_error or self._frame_error

    # -- configuration ------------------------------------------------------------------------------------------------

    def apply_config(self, config: Config) -> bool:
        """Take another codebook from the next frame on; returns whether it was taken."""
        try:
            codebook = config.read_codebook()
            if config.axes is not None:
                raise CodebookError("a camera has no axes")
            if codebook is not None:
                check_images(codebook)
                self.codebook = codebook
        except GammawearError as error:
            self.refuse_config(error)
            return False
        self._config_error = None
        self.revision += 1
        return True

    def refuse_config(self, error: GammawearError) -> None:
        """Report a configuration that could not be read or run."""
        self._config_error = _shortened(error)
        self.revision += 1

    def _say(self, error: GammawearError | None) -> None:
        text = None if error is None else _shortened(error)
        if text != self._frame_error:
            self._frame_error = text
            self.revision += 1

    def status(self, *, packets: int | None = None, dropped: int = 0, time_ms: int | None = None) -> Status:
        """The ``online`` message."""
        return Status(
            state="online",
            camera=True,
            source=self.source.kind,
            codebook=self.codebook.digest.hex(),
            sensor=self.source.name,
            adc_bits=self.source.adc_bits,
            packets=self.frames_made if packets is None else packets,
            dropped=dropped,
            error=self.error,
            time_ms=time_ms,
        )

    # -- the loop -----------------------------------------------------------------------------------------------------

    def next_frame(self) -> FrameEmission | None:
        """Take the next exposure; None once the source has ended. One that cannot be sent is said and passed over.

        A configuration may come meanwhile, on another thread: it takes effect with the frame after.
        """
        number, codebook = self._exposures, self.codebook
        self._exposures += 1
        due_ms = round(1000 * number / self._fps)
        nothing = FrameEmission((), None, due_ms)
        try:
            exposure = self.source.at(number, due_ms / 1000)
            if exposure is None:
                return None
            lift = self._lift = lift_for(exposure.frame.mean_light, self._lift)
            codes = exposure.frame.codes(self._lookup(exposure.frame.sensor, codebook, lift))
            if self._gated and not self._moved(codes, codebook, lift, due_ms):
                self.held_back += 1
                self._say(None)
                return nothing
            emission = self._emit(exposure, codes, codebook, lift, due_ms)
        except GammawearError as error:
            self.unreadable += 1
            self._say(error)
            return nothing
        self._say(None)
        return emission

    def _emit(self, exposure: Exposure, codes: CodeMosaic, codebook: Codebook, lift: int, due_ms: int) -> FrameEmission:
        sequence = self.frames_made % SEQUENCE_MODULUS
        chunks = frame_chunks(
            codes,
            codebook,
            cfa=exposure.frame.sensor.cfa,
            sequence=sequence,
            tick_ms=due_ms,
            exposure_us=exposure.frame.exposure_us,
            binning=exposure.binning,
            lift=lift,
            max_payload=self._chunk_bytes,
            compress=self._compress,
        )
        self.frames_made += 1
        truth = None if exposure.truth is None else Truth(sequence=sequence, boxes=list(exposure.truth))
        return FrameEmission(tuple(map(bytes, chunks)), truth, due_ms)

    def _lookup(self, sensor: CameraSensor, codebook: Codebook, lift: int) -> NDArray[np.uint8]:
        key = sensor, codebook.digest, lift
        if key not in self._lookups:
            self._lookups = {key: sensor.lookup(codebook, lift)}  # the present one only: files may all differ
        return self._lookups[key]

    def _moved(self, codes: CodeMosaic, codebook: Codebook, lift: int, due_ms: int) -> bool:
        """Whether anything moved since the last frame that was sent, by sums of codes in blocks; remembers it if so."""
        height, width = (side - side % GATE_CELLS for side in codes.shape)
        cut = codes[:height, :width].reshape(height // GATE_CELLS, GATE_CELLS, width // GATE_CELLS, GATE_CELLS)
        blocks: NDArray[np.int64] = cut.sum(axis=(1, 3), dtype=np.int64)
        most = round(GATE_SHIFT * 2**codebook.bits * GATE_CELLS**2)
        still = False
        if self._sent is not None:
            digest, lifted, before, sent_ms = self._sent
            alike = (digest, lifted) == (codebook.digest, lift) and before.shape == blocks.shape and blocks.size > 0
            moving = (np.abs(blocks - before) > most).sum() if alike else blocks.size
            still = alike and moving <= GATE_SHARE * blocks.size and due_ms - sent_ms < GATE_REST_S * 1000
        if not still:
            self._sent = codebook.digest, lift, blocks, due_ms
        return not still


def _shortened(error: GammawearError) -> str:
    text = str(error)
    return text if len(text) <= MAX_ERROR_CHARS else text[: MAX_ERROR_CHARS - 1] + "…"
