"""The classical bar: a random forest on hand-made features of the same quantized samples that a network sees.

A network that does not beat it is not worth its energy. Forests are evaluated and thrown away: scikit-learn has no
file format but pickles, and this project loads none. So no gateway serves one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from models.features import window_features
from models.windows import Windows
from quantization.codebook import Codebook
from quantization.codec import Encoder
from quantization.errors import TrainingError
from quantization.imu import Floats
from quantization.sensor import Sensor

TREES: Final = 300
CHUNK: Final = 4096
"""Windows whose features are computed at once: some tens of MB at 100 samples of 6 channels."""


@dataclass(frozen=True, eq=False)
class Forest:
    """A fitted forest and the quantizer before it.

    Args:
        trees: scikit-learn's forest; its classes may be fewer than ``classes``.
        codebook: what the samples pass; None leaves the part's own counts.
        sensor: the part that measures.
        classes: K.
    """

    trees: RandomForestClassifier
    codebook: Codebook | None
    sensor: Sensor
    classes: int

    def probabilities(self, windows: Windows) -> NDArray[np.float32]:
        """``[W, K]`` means of the trees' answers, for :func:`models.scores.score`; 0 for a class never seen."""
        result = np.zeros((len(windows), self.classes), dtype=np.float32)
        result[:, self.trees.classes_] = self.trees.predict_proba(_table(windows, self.codebook, self.sensor))
        return result


def fit_forest(
    train: Windows,
    codebook: Codebook | None,
    sensor: Sensor,
    *,
    classes: int,
    seed: int,
    trees: int = TREES,
    jobs: int = 1,
) -> Forest:
    """Fit a forest on the labelled windows of ``train``.

    Windows are taken as they were recorded, where networks train on crops that are varied.

    Args:
        train: physical windows; unlabelled ones are left out.
        codebook: quantize by it; None for the part's own counts (12 bits).
        sensor: the part that measures.
        classes: K, the label names that there are.
        seed: of the samples and features that each tree sees.
        trees: how many; more only make it slower and its answers smoother.
        jobs: threads.

    Raises:
        TrainingError: no window is labelled.
    """
    labelled = train.where(train.truth >= 0)
    if not len(labelled):
        raise TrainingError("no window is labelled: there is nothing for a forest to learn")
    forest = RandomForestClassifier(trees, class_weight="balanced_subsample", n_jobs=jobs, random_state=seed)
    forest.fit(_table(labelled, codebook, sensor), labelled.truth)
    return Forest(forest, codebook, sensor, classes)


def _table(windows: Windows, codebook: Codebook | None, sensor: Sensor) -> NDArray[np.float32]:
    """``[W, features]`` of what is left of windows after the ADC and the quantizer."""
    measured = _measured(codebook, sensor)
    parts = []
    for at in range(0, len(windows), CHUNK):
        values = windows.values[at : at + CHUNK]
        flat = measured(values.reshape(-1, values.shape[2]))
        parts.append(np.hstack(list(window_features(flat.reshape(values.shape)).values())).astype(np.float32))
    return np.concatenate(parts)


def _measured(codebook: Codebook | None, sensor: Sensor) -> Callable[[NDArray[np.float32]], Floats]:
    """From ``[n, C]`` true values to the ``[n, C]`` physical values that a gateway would decode."""
    if codebook is None:
        return lambda values: sensor.to_physical(sensor.to_counts(values))
    encoder = Encoder(codebook, sensor)
    return lambda values: codebook.decode(encoder.encode(sensor.to_counts(values)))
