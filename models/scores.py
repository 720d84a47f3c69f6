"""How good predictions are, by the one scoring rule of :mod:`models.windows`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.windows import Windows
from quantization.errors import DatasetError


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores over the labelled windows.

    Args:
        macro_f1: mean of the F1 of every class that occurs in truth or prediction.
        accuracy: share of windows whose likeliest class is the truth.
        macro_f1_pure: ``macro_f1`` on windows of one label only; NaN where there are none.
        windows: how many were scored.
        f1: ``[K]`` F1 of each class; NaN where it occurs in neither truth nor prediction.
        confusion: int64 ``[K, K]``, rows are the truth.
    """

    macro_f1: float
    accuracy: float
    macro_f1_pure: float
    windows: int
    f1: NDArray[np.float64]
    confusion: NDArray[np.int64]


def score(windows: Windows, likelihoods: NDArray[np.float32]) -> Scores:
    """Score the likeliest class of ``[W, K]`` probabilities or logits; ``unknown`` has no part in it.

    Raises:
        DatasetError: no window is labelled.
    """
    classes = likelihoods.shape[1]
    known = windows.truth >= 0
    if not known.any():
        raise DatasetError("no window is labelled: there is nothing to score against")
    truth = windows.truth[known]
    predicted = likelihoods[known].argmax(axis=1)
    table = confusion(truth, predicted, classes)
    f1 = f1_per_class(table)
    pure = windows.pure[known]
    pure_f1 = f1_per_class(confusion(truth[pure], predicted[pure], classes))
    return Scores(
        macro_f1=float(np.nanmean(f1)),
        accuracy=float((truth == predicted).mean()),
        macro_f1_pure=float(np.nanmean(pure_f1)) if pure.any() else float("nan"),
        windows=int(known.sum()),
        f1=f1,
        confusion=table,
    )


def confusion(truth: NDArray[np.int16], predicted: NDArray[np.intp], classes: int) -> NDArray[np.int64]:
    """``[K, K]`` counts; rows are the truth."""
    flat = np.bincount(truth.astype(np.int64) * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes)


def f1_per_class(table: NDArray[np.int64]) -> NDArray[np.float64]:
    """``[K]`` F1 = 2 TP / (2 TP + FP + FN) from a confusion table; NaN for a class that never occurs.

    >>> f1_per_class(np.array([[1, 1, 0], [0, 2, 0], [0, 0, 0]])).round(3).tolist()
    [0.667, 0.8, nan]
    """
    hit = np.diag(table).astype(np.float64)
    occurs = table.sum(axis=0) + table.sum(axis=1)
    return np.divide(2 * hit, occurs, out=np.full(len(table), np.nan), where=occurs > 0)
