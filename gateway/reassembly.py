"""One device's packets back in order, each in its place on the device's own time line.

What a packet's sequence number and tick say is compared with what comes next on the line:

* the next number, and a tick within :func:`slack_ms` of the end of the packet before: it *follows*;
* a higher number, or a tick further on: packets are missing. It is held back a little (:data:`HOLD_PACKETS`,
  :data:`HOLD_MS`) for those to arrive late, then they are counted as lost and a *gap* is declared;
* a lower number at a lower tick: a duplicate if its bytes were seen, ``late`` if its place has been given up;
* anything else does not belong to the line. A device that restarted looks like that, and so does a stray packet from
  before. Two such packets that follow one another are a *start*: the line begins anew with them, and nothing is counted
  as lost. A single one is dropped (``unplaced``).

Sequence numbers are counted modulo 4096: an outage of more than 4095 packets counts as lost only the remainder. Missing
*samples* are counted by ticks as well, which do not have this limit.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from enum import Enum
from typing import Final

from gateway.clock import passed, unwrap
from models.bundle import Bundle
from protocol.packet import SEQUENCE_MODULUS, TICK_MODULUS, samples_that_fit
from quantization.codebook import RATE_TOLERANCE
from quantization.imu import Codes

HOLD_PACKETS: Final = 8
"""Packets that wait for one that is missing. Over TCP order is kept; two bridges or a resend swap a few."""
HOLD_MS: Final = 300.0
"""So long they wait: every loss delays the stream by as much."""
REMEMBERED: Final = 128
"""Packets by which duplicates are known: more than a device may have under way unacknowledged (100)."""
BACKLOG_MS: Final = 86_400_000.0
"""How far ahead of the time that passed a device's ticks may jump: what a broker or device kept for a day."""
ROUNDING_MS: Final = 2.0
"""Ticks are whole milliseconds: two of them are off by up to one together, and a part's FIFO may add one."""


class Joint(Enum):
    """How a packet joins what came before it."""

    FOLLOWS = "follows"
    GAP = "gap"
    START = "start"


@dataclass(slots=True)
class Piece:
    """A decoded packet.

    Args:
        bundle: what its codes belong to.
        codes: ``[n, C]``.
        sequence: 0 .. 4095.
        tick: as sent; once placed, unwrapped ms of the first sample.
        period_ms: between samples.
        received_ns: UTC.
        fingerprint: of its bytes, 63 bits.
        joint: once placed.
        taken_ns: UTC at which a bridge had it, where it waited there; None = it came straight here.
    """

    bundle: Bundle
    codes: Codes
    sequence: int
    tick: int
    period_ms: float
    received_ns: int
    fingerprint: int
    joint: Joint = Joint.FOLLOWS
    taken_ns: int | None = None

    @property
    def duration_ms(self) -> float:
        """From the first sample to the one after the last."""
        return len(self.codes) * self.period_ms


@dataclass(slots=True)
class Losses:
    """What happened on the way, in packets unless it says otherwise."""

    accepted: int = 0
    lost: int = 0
    duplicate: int = 0
    reordered: int = 0
    late: int = 0
    unplaced: int = 0
    restarts: int = 0
    samples_missing: int = 0

    def add(self, name: str, count: int = 1) -> None:
        """Count."""
        setattr(self, name, getattr(self, name) + count)


def slack_ms(piece: Piece) -> float:
    """How far from the end of ``piece`` the next packet may begin and still follow it.

    Half a sample and the rounding of ticks, and 5 % of its duration: a device within 5 % of the codebook's rate is
    taken as it is, and its packets then begin by as much earlier or later than the nominal rate says.
    """
    return RATE_TOLERANCE * piece.duration_ms + piece.period_ms / 2 + ROUNDING_MS


class Reassembler:
    """One device's line. :meth:`push` packets as they arrive, get them in order.

    Args:
        totals: counted into besides :attr:`losses`, for all devices together.

    Attributes:
        losses: of this device since it is known.
        line_packets: that have their place on the present line.
    """

    __slots__ = ("_held", "_last", "_next", "_positions", "_prints", "_suspect", "_totals", "line_packets", "losses")

    def __init__(self, totals: Losses | None = None) -> None:
        self.losses = Losses()
        self.line_packets = 0
        self._totals = Losses() if totals is None else totals
        self._last: Piece | None = None
        self._next = 0  # unwrapped sequence number
        self._held: dict[int, Piece] = {}  # by unwrapped sequence number; ticks unwrapped
        self._suspect: Piece | None = None
        self._positions = array("q", [-1]) * REMEMBERED
        self._prints = array("q", [0]) * REMEMBERED

    @property
    def tick(self) -> int | None:
        """Unwrapped tick of the newest packet that has its place; None before the first."""
        return None if self._last is None else self._last.tick

    @property
    def held(self) -> int:
        """Packets that wait, one that may be a restart included."""
        return len(self._held) + (self._suspect is not None)

    def restart(self, packets: int = 0) -> list[Piece]:
        """Forget the line: the device has said that it started anew, and the next packet begins one.

        Args:
            packets: that it has made since. If there are any, the one in doubt is the first that came of them.

        Returns:
            What is in order now.
        """
        first = self._suspect if packets else None
        if first is not None:
            self._suspect = None
        self._abandon()
        self._last = None
        self.line_packets = 0
        return [] if first is None else self._begin(first)

    def push(self, piece: Piece) -> list[Piece]:
        """Put one packet in its place; returns what is in order now, oldest first."""
        last = self._last
        if last is None:
            return self._begin(piece)
        end = last.tick + last.duration_ms
        tick = unwrap(piece.tick, round(end), TICK_MODULUS)
        ahead = (piece.sequence - self._next) % SEQUENCE_MODULUS
        late_by = tick - end
        if ahead == 0 and abs(late_by) <= slack_ms(last):
            return self._follow(piece, tick)
        if late_by > 0 and self._plausible(piece, last, ahead, late_by):
            return self._jump(piece, tick, ahead)
        if late_by < 0 and self._is_old(piece, last, SEQUENCE_MODULUS - ahead, -late_by):
            return []
        return self._doubt(piece)

    def expire(self, now_ns: int) -> list[Piece]:
        """Give up waiting for what has been missing for :data:`HOLD_MS`; returns what is in order now."""
        placed: list[Piece] = []
        while self._held:
            first = min(self._held)
            if not passed(self._held[first].received_ns, now_ns, HOLD_MS * 1e6):
                break
            placed += self._skip_to(first)
        return placed

    def _begin(self, piece: Piece) -> list[Piece]:
        piece.joint = Joint.START
        self.line_packets = 0
        # One turn above zero, so that a packet from before the first one still has a position that is not negative.
        self._next = SEQUENCE_MODULUS + piece.sequence
        self._positions = array("q", [-1]) * REMEMBERED
        return [self._place(piece)]

    def _follow(self, piece: Piece, tick: int) -> list[Piece]:
        piece.tick = tick
        self._drop_suspect()
        if not self._held:
            return [self._place(piece)]
        self._count("reordered")
        return [self._place(piece), *self._drain()]

    def _jump(self, piece: Piece, tick: int, ahead: int) -> list[Piece]:
        position = self._next + ahead
        if position in self._held:
            if self._held[position].fingerprint == piece.fingerprint:
                self._count("duplicate")
                return []
            return self._doubt(piece)
        self._drop_suspect()
        if self._held and position < max(self._held):
            self._count("reordered")
        piece.tick = tick
        self._held[position] = piece
        placed: list[Piece] = []
        # With ahead == 0 nothing is missing that could still come: the device itself skipped samples.
        while self._held and (self._next in self._held or max(self._held) - self._next > HOLD_PACKETS):
            placed += self._skip_to(min(self._held))
        return placed

    def _plausible(self, piece: Piece, last: Piece, ahead: int, late_by: float) -> bool:
        """Whether ``ahead`` packets may be missing over ``late_by`` ms, and whether so much time can have passed."""
        shortest = _shortest_ms(last, piece) / 2
        waited = max(0, piece.received_ns - last.received_ns) / 1e6
        return ahead * shortest <= late_by + slack_ms(last) and late_by <= waited + BACKLOG_MS

    def _is_old(self, piece: Piece, last: Piece, behind: int, early_by: float) -> bool:
        """Whether the packet belongs to the line but its place is taken (duplicate) or given up (late)."""
        if behind > min(REMEMBERED, SEQUENCE_MODULUS - 1):
            return False
        position = self._next - behind
        slot = position % REMEMBERED
        if self._positions[slot] == position:
            if self._prints[slot] != piece.fingerprint:
                return False
            self._count("duplicate")
            return True
        longest = max(last.duration_ms, piece.duration_ms)
        slack = slack_ms(last)
        if not behind * _shortest_ms(last, piece) / 2 - slack <= early_by <= 2 * behind * longest + slack:
            return False
        self._count("late")
        return True

    def _doubt(self, piece: Piece) -> list[Piece]:
        suspect = self._suspect
        if suspect is None:
            self._suspect = piece
            return []
        if suspect.fingerprint == piece.fingerprint:
            self._count("duplicate")
            return []
        self._suspect = piece
        if not _may_follow(suspect, piece):
            self._count("unplaced")
            return []
        self._suspect = None
        self._abandon()
        self._count("restarts")
        return self._begin(suspect) + self.push(piece)

    def _abandon(self) -> None:
        for _ in self._held:
            self._count("unplaced")
        self._held.clear()
        self._drop_suspect()

    def _drop_suspect(self) -> None:
        if self._suspect is not None:
            self._suspect = None
            self._count("unplaced")

    def _skip_to(self, position: int) -> list[Piece]:
        piece = self._held.pop(position)
        last = self._last
        if last is not None:
            self._count("lost", position - self._next)
            self._count_missing_samples(last, piece)
        piece.joint = Joint.GAP
        self._next = position
        return [self._place(piece), *self._drain()]

    def _drain(self) -> list[Piece]:
        """What now follows of the packets that were held."""
        placed: list[Piece] = []
        while (piece := self._held.pop(self._next, None)) is not None:
            last = self._last
            if last is not None and abs(piece.tick - last.tick - last.duration_ms) > slack_ms(last):
                piece.joint = Joint.GAP
                self._count_missing_samples(last, piece)
            placed.append(self._place(piece))
        return placed

    def _place(self, piece: Piece) -> Piece:
        slot = self._next % REMEMBERED
        self._positions[slot] = self._next
        self._prints[slot] = piece.fingerprint
        self._next += 1
        self._last = piece
        self.line_packets += 1
        self.losses.accepted += 1
        self._totals.accepted += 1
        return piece

    def _count_missing_samples(self, last: Piece, piece: Piece) -> None:
        missing_ms = piece.tick - last.tick - last.duration_ms
        self._count("samples_missing", max(0, round(missing_ms / piece.period_ms)))

    def _count(self, name: str, count: int = 1) -> None:
        self.losses.add(name, count)
        self._totals.add(name, count)


def _shortest_ms(last: Piece, piece: Piece) -> float:
    """What a packet between two others lasts at least, unless its device's link takes less than ours.

    Entropy coded packets may be of any length; none is cut shorter than what plain packing holds.
    """
    codebook = piece.bundle.codebook
    plain_ms = samples_that_fit(len(codebook.channels), codebook.bits) * piece.period_ms
    return min(last.duration_ms, piece.duration_ms, plain_ms)


def _may_follow(first: Piece, second: Piece) -> bool:
    """Whether two packets are of one line, with at most a few missing between them."""
    end = first.tick + first.duration_ms
    gap = unwrap(second.tick, round(end), TICK_MODULUS) - end
    missing = (second.sequence - first.sequence - 1) % SEQUENCE_MODULUS
    longest = max(first.duration_ms, second.duration_ms)
    return missing <= HOLD_PACKETS and -slack_ms(first) <= gap <= 2 * missing * longest + slack_ms(first)
