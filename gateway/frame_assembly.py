"""Chunks of cameras' frames back to whole frames, in whatever order they come.

What waits for its other chunks is bounded: two frames of a camera, so many frames and coded bytes of all cameras
together, and for a limited time. A frame takes up its full size from its first chunk on, so that one which has begun
has the room to end. Where there is no room, the frame that has waited longest goes.

A camera numbers its frames without a gap: those of which no chunk came are counted, too. A number that was passed by is
waited for as long as a frame is, since a counter cannot take back what it counted. A number is only what somebody wrote
into a chunk: one that is far from those before is refused, and believed once another follows it.

Nothing is decoded here. That a chunk's bytes are sound is known (:mod:`protocol.frame`); that all of them together are,
is for :func:`protocol.frame.decode_frame` to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.clock import passed
from protocol.frame import SEQUENCE_MODULUS, Chunk, FrameHeader
from quantization.errors import FrameError

PARTIAL_FRAMES: Final = 2
"""Of one camera: chunks of two frames may come mixed, after an outage or through two bridges."""
REMEMBERED_FRAMES: Final = 8
"""Of one camera, complete or given up: by these, late chunks and repeated frames are known."""
MISSING_FRAMES: Final = 32
"""Of one camera, not a chunk of which has come yet: older ones are given up."""
MAX_GAP: Final = 2**16
"""Frames that may be missing between two: what a camera makes in 18 hours at a frame a second."""
MAX_LATE: Final = 2**10
"""A frame may come after so many newer ones: more than any camera makes in the time that its chunks are waited for."""


@dataclass(frozen=True)
class Frame:
    """A whole frame, not yet decoded.

    Args:
        header: what all of its chunks said.
        coded: the coded bytes.
        received_ns: when the last of its chunks to arrive did.
    """

    header: FrameHeader
    coded: bytes
    received_ns: int


@dataclass(slots=True)
class FrameLosses:
    """What happened to frames and chunks.

    Args:
        completed: frames.
        duplicate: chunks that were there already, or are of a frame that was complete.
        late: chunks of a frame that had been given up.
        timed_out: frames given up because chunks were missing for too long.
        displaced: frames given up because newer ones took their room.
        lost: frames of which no usable chunk came in time, or not all before their camera began anew or was forgotten;
            one that comes later still is taken all the same.
        chunks_lost: that had arrived of frames which were given up.
        restarts: cameras whose numbers began anew without a word.
    """

    completed: int = 0
    duplicate: int = 0
    late: int = 0
    timed_out: int = 0
    displaced: int = 0
    lost: int = 0
    chunks_lost: int = 0
    restarts: int = 0


@dataclass(slots=True)
class _Partial:
    header: FrameHeader
    first_ns: int
    coded: bytearray
    present: bytearray  # a byte a chunk
    missing: int


@dataclass(slots=True)
class _Line:
    """One camera's numbers since it began: what comes next, and since when which are missing, the oldest first."""

    next_sequence: int
    missing: dict[int, int]
    doubted: int | None = None  # the number of the last frame, if it was refused


class FrameAssembler:
    """All cameras' frames in the making. :meth:`push` chunks as they arrive.

    A caller bounds how many cameras there are, and says :meth:`forget` of those that are gone: each takes some
    kilobytes even when nothing of it waits.

    Args:
        max_frames: that wait at the same time, of all cameras.
        max_bytes: coded bytes of all frames that wait.
        timeout_s: from a frame's first chunk until it is given up.

    Attributes:
        losses: of all cameras.
        waiting_bytes: coded bytes of all frames that wait now.

    Raises:
        ValueError: a bound below 1, or a time-out that is not above 0.
    """

    def __init__(self, *, max_frames: int = 64, max_bytes: int = 32 * 2**20, timeout_s: float = 10.0) -> None:
        if max_frames < 1 or max_bytes < 1 or not timeout_s > 0:
            raise ValueError(f"{max_frames} frames, {max_bytes} bytes and {timeout_s} s must all be above 0")
        self.losses = FrameLosses()
        self.waiting_bytes = 0
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._timeout_ns = round(timeout_s * 1e9)
        self._partial: dict[tuple[str, int], _Partial] = {}  # by camera and sequence, the oldest first
        self._ended: dict[str, dict[FrameHeader, bool]] = {}  # whether complete, the oldest first
        self._lines: dict[str, _Line] = {}

    @property
    def waiting(self) -> int:
        """Frames of which chunks are missing."""
        return len(self._partial)

    def next_sequence(self, camera: str) -> int:
        """After the newest of a camera's frames since it began; 0 before the first."""
        line = self._lines.get(camera)
        return 0 if line is None else line.next_sequence

    def push(self, camera: str, chunk: Chunk, now_ns: int) -> Frame | None:
        """Take one chunk; returns its frame if that is complete now, once.

        Args:
            camera: whose chunk it is.
            chunk: the bytes of a frame's chunk, read.
            now_ns: UTC.

        Raises:
            FrameError: ``contradiction`` to what came before under this sequence, which stays; ``frame_limit`` the
                frame is larger than all that may wait; ``unplaced`` its number is far from those before.
        """
        self._give_up_late(now_ns)
        header = chunk.header
        complete = self._ended.get(camera, {}).get(header)
        if complete is not None:
            self._count_again(complete=complete)
            return None
        partial = self._partial.get((camera, header.sequence))
        if partial is None:
            if chunk.count == 1:
                self._arrive(camera, header.sequence, now_ns)
                return self._complete(camera, Frame(header, chunk.payload, now_ns))
            partial = self._begin(camera, chunk, now_ns)
        elif partial.header != header or len(partial.present) != chunk.count:
            raise FrameError("contradiction", f"frame {header.sequence} was another one in the chunks before")
        place = slice(chunk.start, chunk.start + len(chunk.payload))
        if partial.present[chunk.index]:
            if partial.coded[place] != chunk.payload:
                raise FrameError("contradiction", f"frame {header.sequence} had another chunk {chunk.index} before")
            self.losses.duplicate += 1
            return None
        partial.coded[place] = chunk.payload
        partial.present[chunk.index] = 1
        partial.missing -= 1
        if partial.missing:
            return None
        self._take((camera, header.sequence))
        return self._complete(camera, Frame(header, bytes(partial.coded), now_ns))

    def expire(self, now_ns: int) -> None:
        """Give up what has waited, or was waited for, too long: to be called a few times a second."""
        self._give_up_late(now_ns)
        for line in self._lines.values():
            while line.missing:
                oldest = next(iter(line.missing))
                if not passed(line.missing[oldest], now_ns, self._timeout_ns):
                    break
                del line.missing[oldest]
                self.losses.lost += 1

    def forget(self, camera: str) -> None:
        """Drop all that is known of a camera, which may begin anew. What was waited for is lost."""
        for key in [key for key in self._partial if key[0] == camera]:
            self.losses.chunks_lost += sum(self._take(key).present)
            self.losses.lost += 1
        line = self._lines.pop(camera, None)
        if line is not None:
            self.losses.lost += len(line.missing)
        self._ended.pop(camera, None)

    def _arrive(self, camera: str, sequence: int, now_ns: int) -> None:
        """A frame of which nothing was there has begun to come: the numbers before it that did not are missing."""
        line = self._lines.get(camera)
        if line is None:  # whoever begins to listen has not missed what was sent before
            line = self._lines[camera] = _Line(sequence, {})
        ahead = (sequence - line.next_sequence) % SEQUENCE_MODULUS
        if MAX_GAP < ahead < SEQUENCE_MODULUS - MAX_LATE:
            if line.doubted != (sequence - 1) % SEQUENCE_MODULUS:
                line.doubted = sequence
                raise FrameError("unplaced", f"frame {sequence} is far from {line.next_sequence}, which comes next")
            self.forget(camera)
            self.losses.restarts += 1
            line, ahead = _Line(sequence, {}), 0
            self._lines[camera] = line
        line.doubted = None
        if ahead > MAX_GAP:
            line.missing.pop(sequence, None)
            return
        line.next_sequence = (sequence + 1) % SEQUENCE_MODULUS
        self.losses.lost += max(0, ahead - MISSING_FRAMES)
        for behind in range(min(ahead, MISSING_FRAMES), 0, -1):
            line.missing[(sequence - behind) % SEQUENCE_MODULUS] = now_ns
        while len(line.missing) > MISSING_FRAMES:
            del line.missing[next(iter(line.missing))]
            self.losses.lost += 1

    def _give_up_late(self, now_ns: int) -> None:
        while self._partial:
            oldest = next(iter(self._partial))
            if not passed(self._partial[oldest].first_ns, now_ns, self._timeout_ns):
                return
            self._give_up(oldest)
            self.losses.timed_out += 1

    def _begin(self, camera: str, chunk: Chunk, now_ns: int) -> _Partial:
        size = chunk.header.coded_bytes
        if size > self._max_bytes:
            raise FrameError("frame_limit", f"a frame of {size} bytes; all that wait have {self._max_bytes}")
        self._arrive(camera, chunk.header.sequence, now_ns)
        own = [key for key in self._partial if key[0] == camera]
        if len(own) >= PARTIAL_FRAMES:
            self._displace(own[0])
        while len(self._partial) >= self._max_frames or self.waiting_bytes + size > self._max_bytes:
            self._displace(next(iter(self._partial)))
        partial = _Partial(chunk.header, now_ns, bytearray(size), bytearray(chunk.count), chunk.count)
        self._partial[camera, chunk.header.sequence] = partial
        self.waiting_bytes += size
        return partial

    def _complete(self, camera: str, frame: Frame) -> Frame:
        self._remember(camera, frame.header, complete=True)
        self.losses.completed += 1
        return frame

    def _displace(self, key: tuple[str, int]) -> None:
        self._give_up(key)
        self.losses.displaced += 1

    def _give_up(self, key: tuple[str, int]) -> None:
        partial = self._take(key)
        self.losses.chunks_lost += sum(partial.present)
        self._remember(key[0], partial.header, complete=False)

    def _take(self, key: tuple[str, int]) -> _Partial:
        partial = self._partial.pop(key)
        self.waiting_bytes -= partial.header.coded_bytes
        return partial

    def _remember(self, camera: str, header: FrameHeader, *, complete: bool) -> None:
        ended = self._ended.setdefault(camera, {})
        ended[header] = complete
        if len(ended) > REMEMBERED_FRAMES:
            del ended[next(iter(ended))]

    def _count_again(self, *, complete: bool) -> None:
        if complete:
            self.losses.duplicate += 1
        else:
            self.losses.late += 1
