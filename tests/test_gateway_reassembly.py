from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from factories import tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.reassembly import HOLD_MS, HOLD_PACKETS, Joint, Losses, Piece, Reassembler
from models.bundle import Bundle
from protocol.packet import SEQUENCE_MODULUS, TICK_MODULUS

DURATION = 1000
SAMPLES = 50


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder: Path = tmp_path_factory.mktemp("bundles")
    return tiny_bundle(folder)


class Line:
    """A device's packets by number: sequence and tick as sent, and the time at which they arrive."""

    def __init__(self, bundle: Bundle, *, sequence: int = 0, tick: int = 0, life: int = 0) -> None:
        self.bundle, self.sequence, self.tick, self.life = bundle, sequence, tick, life

    def piece(self, i: int, *, arrival_ms: float | None = None, tick_offset: int = 0) -> Piece:
        arrival = (i + 1) * DURATION if arrival_ms is None else arrival_ms
        return Piece(
            self.bundle,
            np.full((SAMPLES, 6), i % 16, dtype=np.uint8),
            (self.sequence + i) % SEQUENCE_MODULUS,
            (self.tick + i * DURATION + tick_offset) % TICK_MODULUS,
            1000 / 50,
            int(arrival * 1e6),
            hash((self.life, i)),
        )


def offsets(placed: list[Piece], line: Line) -> list[int]:
    return [(piece.tick - line.tick) // DURATION for piece in placed]


@pytest.mark.parametrize(("sequence", "tick"), [(0, 0), (4090, 2**32 - 3500), (4095, 2**32 - 1), (17, 2**31 - 2000)])
def test_in_order_through_both_wraps(bundle: Bundle, sequence: int, tick: int) -> None:
    line, reassembler = Line(bundle, sequence=sequence, tick=tick), Reassembler()
    placed = [one for i in range(10) for one in reassembler.push(line.piece(i))]
    assert offsets(placed, line) == list(range(10))
    assert [one.joint for one in placed] == [Joint.START, *[Joint.FOLLOWS] * 9]
    assert reassembler.losses == Losses(accepted=10)


def test_a_swap_is_healed(bundle: Bundle) -> None:
    line, reassembler = Line(bundle), Reassembler()
    placed = [one for i in (0, 1, 3, 4, 2, 5) for one in reassembler.push(line.piece(i))]
    assert offsets(placed, line) == list(range(6))
    assert all(one.joint is Joint.FOLLOWS for one in placed[1:])
    assert reassembler.losses == Losses(accepted=6, reordered=1)


def test_a_loss_is_declared_after_a_while(bundle: Bundle) -> None:
    line, reassembler = Line(bundle), Reassembler()
    reassembler.push(line.piece(0))
    assert reassembler.push(line.piece(3)) == []
    arrived = 4 * DURATION
    assert reassembler.expire(int((arrived + HOLD_MS - 1) * 1e6)) == []
    (placed,) = reassembler.expire(int((arrived + HOLD_MS) * 1e6))
    assert placed.joint is Joint.GAP
    assert (placed.tick, reassembler.losses.lost, reassembler.losses.samples_missing) == (3 * DURATION, 2, 2 * SAMPLES)
    assert reassembler.push(line.piece(1)) == []
    assert reassembler.losses.late == 1


def test_what_waits_is_bounded_by_count(bundle: Bundle) -> None:
    line, reassembler = Line(bundle), Reassembler()
    reassembler.push(line.piece(0))
    placed = [one for i in range(2, 40) for one in reassembler.push(line.piece(i, arrival_ms=1.0))]
    assert reassembler.held <= HOLD_PACKETS
    assert [one.joint for one in placed][:2] == [Joint.GAP, Joint.FOLLOWS]
    assert reassembler.losses.lost == 1


def test_a_long_outage_counts_packets_modulo_and_samples_in_full(bundle: Bundle) -> None:
    line, reassembler = Line(bundle), Reassembler()
    reassembler.push(line.piece(0))
    (placed,) = reassembler.push(line.piece(5001))
    assert placed.joint is Joint.GAP
    assert reassembler.losses.lost == 5000 % SEQUENCE_MODULUS
    assert reassembler.losses.samples_missing == 5000 * SAMPLES


@pytest.mark.parametrize("behind", [1, 2, 50, 100])
def test_duplicates_are_known(bundle: Bundle, behind: int) -> None:
    line, reassembler = Line(bundle, sequence=4000), Reassembler()
    for i in range(120):
        reassembler.push(line.piece(i))
    assert reassembler.push(line.piece(120 - behind)) == []
    assert reassembler.losses == Losses(accepted=120, duplicate=1)


@pytest.mark.parametrize("ran", [2, 10, 127, 3000])
@pytest.mark.parametrize("first", [0, 3])
def test_a_restart_is_not_a_loss(bundle: Bundle, ran: int, first: int) -> None:
    """The second life begins at tick 0 again, its first packets may be lost."""
    old, new, reassembler = Line(bundle), Line(bundle, life=1), Reassembler()
    for i in range(ran):
        reassembler.push(old.piece(i))
    off_ms = (ran + 100) * DURATION
    placed = []
    for i in range(first, first + 10):
        placed += reassembler.push(new.piece(i, arrival_ms=off_ms + i * DURATION))
    losses = reassembler.losses
    if first >= ran:  # cannot be told from a loss: ticks and numbers go on
        assert losses.lost == first - ran
        return
    assert losses.lost == 0
    assert losses.restarts == 1
    # Where the old life has a hole at that number, a packet may count as late before the restart shows.
    assert len(placed) >= 9
    starts = [one for one in placed if one.joint is Joint.START]
    assert len(starts) == 1
    assert losses.accepted + losses.late + losses.unplaced + losses.duplicate == ran + 10


def test_a_restart_after_weeks_looks_like_a_jump_forward(bundle: Bundle) -> None:
    old, new = Line(bundle, tick=3 * 2**30, sequence=77), Line(bundle, life=1)
    reassembler = Reassembler()
    for i in range(5):
        reassembler.push(old.piece(i))
    placed = [one for i in range(5) for one in reassembler.push(new.piece(i, arrival_ms=20_000 + i * DURATION))]
    assert placed[0].joint is Joint.START
    assert (reassembler.losses.lost, reassembler.losses.restarts, len(placed)) == (0, 1, 5)


def test_an_announced_restart_with_the_same_bytes(bundle: Bundle) -> None:
    """A replay that begins anew sends exactly what it sent before; only its status tells."""
    line, reassembler = Line(bundle), Reassembler()
    for i in range(20):
        reassembler.push(line.piece(i))
    reassembler.restart()
    placed = [one for i in range(20) for one in reassembler.push(line.piece(i, arrival_ms=30_000 + i * DURATION))]
    assert len(placed) == 20
    assert placed[0].joint is Joint.START
    assert reassembler.losses.duplicate == 0


def test_a_stray_packet_does_not_disturb(bundle: Bundle) -> None:
    line, reassembler = Line(bundle, sequence=100, tick=10**6), Reassembler()
    stray = Line(bundle, sequence=2000, tick=77, life=9)
    placed = []
    for i in range(20):
        placed += reassembler.push(line.piece(i))
        if i == 9:
            placed += reassembler.push(stray.piece(0))
    assert offsets(placed, line) == list(range(20))
    assert reassembler.losses == Losses(accepted=20, unplaced=1)


@pytest.mark.parametrize("rate", [0.951, 1.049])
def test_a_device_five_percent_off_is_in_order(bundle: Bundle, rate: float) -> None:
    reassembler = Reassembler()
    for i in range(200):
        piece = Line(bundle).piece(i)
        piece.tick = round(i * DURATION / rate)
        reassembler.push(piece)
    assert reassembler.losses == Losses(accepted=200)


def test_samples_that_the_device_dropped_are_a_gap(bundle: Bundle) -> None:
    line, reassembler = Line(bundle), Reassembler()
    reassembler.push(line.piece(0))
    (placed,) = reassembler.push(line.piece(1, tick_offset=200))
    assert placed.joint is Joint.GAP
    assert (reassembler.losses.lost, reassembler.losses.samples_missing) == (0, 10)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sequence=st.integers(0, 4095), tick=st.integers(0, 2**32 - 1))
def test_any_loss_duplication_and_swap(bundle: Bundle, seed: int, sequence: int, tick: int) -> None:
    """Whatever the link does within its bounds: order, no packet twice, every missing one counted once."""
    rng = np.random.default_rng(seed)
    line, reassembler = Line(bundle, sequence=sequence, tick=tick), Reassembler()
    lost = {i for i in range(1, 59) if rng.random() < 0.2}
    sent = [i for i in range(60) if i not in lost]
    arriving = [i for i in sent for _ in range(2 if rng.random() < 0.2 else 1)]
    for k in range(2, len(arriving) - 1):  # not the first: a stream begins where it begins
        # What comes too early must not be what makes the line give up waiting: for it, or for one that is lost.
        late, early = arriving[k : k + 2]
        within = early - late <= HOLD_PACKETS and not lost & set(range(early - HOLD_PACKETS, early))
        if 0 not in arriving[k : k + 2] and within and rng.random() < 0.2:
            arriving[k], arriving[k + 1] = arriving[k + 1], arriving[k]
    placed: list[Piece] = []
    for i in arriving:
        placed += reassembler.push(line.piece(i, arrival_ms=60_000.0))
    placed += reassembler.expire(10**15)
    assert [one.tick for one in placed] == [tick + i * DURATION for i in sent]
    losses = reassembler.losses
    gaps = {i for i in lost if i < sent[-1]}
    assert losses == Losses(
        accepted=len(sent),
        lost=len(gaps),
        duplicate=len(arriving) - len(sent),
        reordered=losses.reordered,
        samples_missing=len(gaps) * SAMPLES,
    )
    follows = [one.joint is Joint.FOLLOWS for one in placed[1:]]
    assert follows == [b == a + 1 for a, b in itertools.pairwise(sent)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 2**32 - 1), st.integers(0, 10**6)), max_size=80))
def test_nonsense_is_bounded_and_counted(bundle: Bundle, headers: list[tuple[int, int, int]]) -> None:
    reassembler = Reassembler()
    for number, (sequence, tick, arrival_ms) in enumerate(headers):
        codes = np.zeros((SAMPLES, 6), dtype=np.uint8)
        reassembler.push(Piece(bundle, codes, sequence, tick, 20.0, arrival_ms * 10**6, number))
        assert reassembler.held <= HOLD_PACKETS + 1
    losses = reassembler.losses
    assert losses.accepted + losses.duplicate + losses.late + losses.unplaced + reassembler.held == len(headers)
