"""Smoothing of a stream's answers with nothing but its past, and what that costs in delay.

Answers stand as a list of ``[w, K]`` blocks, one for each segment, oldest window first: a smoother's state begins anew
with each block, because nothing is known of what happened in the gap before. :func:`by_segment` makes such a list from
the windows that :func:`models.windows.cut` gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.resample import Segment
from quantization.errors import DatasetError
from quantization.imu import Floats

_LEAST = 1e-12
# A network in float32 may say exactly 0, from which no evidence would ever bring a filter back.


def by_segment(rows: NDArray[Any], segments: Iterable[Segment], *, length: int, stride: int) -> list[NDArray[Any]]:
    """Split what was computed for the windows of ``cut(segments, ...)`` back into segments.

    Args:
        rows: ``[W, ...]``, one row for each window: probabilities, truths.
        segments: those that were cut, in the same order.
        length: samples of a window, as they were cut.
        stride: samples from one window to the next.

    Returns:
        A block for each segment that is long enough for a window; together they are ``rows``.

    Raises:
        DatasetError: the segments have another number of windows.
    """
    counts = [1 + (n - length) // stride for n in (len(s.values) for s in segments) if n >= length]
    if not counts or sum(counts) != len(rows):
        raise DatasetError(f"{len(rows)} rows; the segments have {sum(counts)} windows of {length} every {stride}")
    return np.split(rows, np.cumsum(counts)[:-1])


def exponential(blocks: Sequence[NDArray[np.floating]], alpha: float) -> list[Floats]:
    """``s_t = α p_t + (1 - α) s_(t-1)``, from ``s_0 = p_0``.

    Args:
        blocks: ``[w, K]`` probabilities of each segment's windows.
        alpha: α, above 0 and at most 1; 1 changes nothing.

    Raises:
        DatasetError: ``alpha`` is out of range.
    """
    if not 0 < alpha <= 1:
        raise DatasetError(f"alpha must be above 0 and at most 1, not {alpha}")
    results = []
    for block in blocks:
        smooth = np.array(block, dtype=np.float64)
        for t in range(1, len(smooth)):
            smooth[t] = (1 - alpha) * smooth[t - 1] + alpha * smooth[t]
        results.append(smooth)
    return results


@dataclass(frozen=True, eq=False)
class HiddenMarkov:
    """The forward filter of a hidden Markov model whose states are the activities (Rabiner 1989, section III.A).

    A network gives p(activity | window); divided by the share of the activity that it was trained with, this stands for
    p(window | activity) (Bourlard and Morgan 1994). Windows that overlap say some things twice, so the filter is surer
    of itself than it should be: its argmax is of use, its probabilities are not calibrated.

    Args:
        transition: float64 ``[K, K]``, p(column next | row now), all above 0; rows sum to 1.
        prior: float64 ``[K]``, the shares that the network's answers lean on; also what a segment starts from.

    Raises:
        DatasetError: shapes that do not fit, entries that are not positive or do not sum to 1.
    """

    transition: Floats
    prior: Floats

    def __post_init__(self) -> None:
        classes = len(self.prior)
        tables = np.vstack([np.asarray(self.transition).reshape(-1, classes), self.prior])
        if tables.shape != (classes + 1, classes):
            raise DatasetError(f"{classes} activities need {classes} x {classes} transitions")
        if not ((tables > 0).all() and np.allclose(tables.sum(axis=1), 1)):
            raise DatasetError("transitions and prior must be positive, each row with the sum 1")

    @classmethod
    def estimate(
        cls, truths: Sequence[NDArray[np.integer]], classes: int, *, leaning: float = 0.5, added: float = 1.0
    ) -> HiddenMarkov:
        """Count the transitions of training subjects.

        Args:
            truths: ``[w]`` of each training segment's windows, at the stride of the stream to come; -1 = unlabelled,
                and no transition is counted from or to it.
            classes: K.
            leaning: how far the network's answers lean on frequent activities: 1 for one trained without weights, 0 for
                balanced classes (:mod:`models.forest`), 1/2 for the root of the inverse frequency (:mod:`models.fit`).
            added: to every count (Laplace); above 0, so that no change is impossible.

        Raises:
            DatasetError: ``added`` is not positive.
        """
        if added <= 0:
            raise DatasetError(f"added must be above 0, not {added}")
        counts = np.full((classes, classes), float(added))
        share = np.full(classes, float(added))
        for truth in truths:
            labelled = truth[truth >= 0].astype(np.int64)
            share += np.bincount(labelled, minlength=classes)
            known = (truth[:-1] >= 0) & (truth[1:] >= 0)
            np.add.at(counts, (truth[:-1][known], truth[1:][known]), 1)
        prior = share**leaning
        return cls(counts / counts.sum(axis=1, keepdims=True), prior / prior.sum())

    def filter(self, blocks: Sequence[NDArray[np.floating]]) -> list[Floats]:
        """p(activity | all windows so far) for ``[w, K]`` network posteriors of each segment.

        A segment's first answer is the network's own.
        """
        results = []
        for block in blocks:
            evidence = np.maximum(np.asarray(block, dtype=np.float64), _LEAST) / self.prior
            belief = np.empty_like(evidence)
            expected = self.prior
            for t, seen in enumerate(evidence):
                belief[t] = expected * seen
                belief[t] /= belief[t].sum()
                expected = belief[t] @ self.transition
            results.append(belief)
        return results


@dataclass(frozen=True)
class Delay:
    """How much later a smoothed stream says that an activity changed.

    Args:
        seconds: mean lag added, over the changes that both streams followed; NaN where there is none.
        changes: true changes of activity.
        followed: of these, how many the answers as they were followed before the next change.
        followed_smoothed: the same of the smoothed answers.
    """

    seconds: float
    changes: int
    followed: int
    followed_smoothed: int


def added_delay(
    truths: Sequence[NDArray[np.integer]],
    answers: Sequence[ArrayLike],
    smoothed: Sequence[ArrayLike],
    *,
    stride_s: float,
) -> Delay:
    """Compare when the likeliest activity follows each true change, with and without smoothing.

    The lag of a change is the number of windows from the first with the new truth to the first, within that bout, whose
    answer is the new truth. A bout that ends before is not followed: short bouts that smoothing swallows are seen in
    the counts, not in the seconds.

    Args:
        truths: ``[w]`` of each segment's windows, -1 = unlabelled, which is no change.
        answers: ``[w, K]`` probabilities as the network gave them.
        smoothed: the same, smoothed.
        stride_s: seconds from one window to the next.
    """
    lags = np.array(
        [
            (_lag(bout, plain), _lag(bout, smooth))
            for truth, before, after in zip(truths, answers, smoothed, strict=True)
            for bout, plain, smooth in _bouts(truth, np.argmax(before, axis=1), np.argmax(after, axis=1))
        ],
        dtype=np.float64,
    ).reshape(-1, 2)
    both = ~np.isnan(lags).any(axis=1)
    added = float((lags[both, 1] - lags[both, 0]).mean() * stride_s) if both.any() else float("nan")
    followed, followed_smoothed = (~np.isnan(lags)).sum(axis=0).tolist()
    return Delay(added, len(lags), followed, followed_smoothed)


def _bouts(
    truth: NDArray[np.integer], plain: NDArray[np.intp], smooth: NDArray[np.intp]
) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.intp]]]:
    """Each bout that follows upon another activity: its truth, and both streams' answers in it."""
    starts = np.flatnonzero(np.diff(truth)) + 1
    for start, stop in pairwise([*starts.tolist(), len(truth)]):
        if truth[start] >= 0 and truth[start - 1] >= 0:
            yield int(truth[start]), plain[start:stop], smooth[start:stop]


def _lag(truth: int, answers: NDArray[np.intp]) -> float:
    found = np.flatnonzero(answers == truth)
    return float(found[0]) if len(found) else float("nan")
