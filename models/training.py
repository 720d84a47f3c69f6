"""What the trainings of activity networks and of detectors share: pace, averages, checkpoints."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from quantization.errors import TrainingError

WARM_UP: Final = 0.1
"""Share of all steps in which the learning rate rises, before the cosine."""

_UpdateAverage = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]


def pace(share: float) -> float:
    """Learning rate, as a share of its peak, after ``share`` of all steps: up in a line, down in a cosine.

    >>> [round(pace(share), 2) for share in (0.05, 0.1, 0.55, 1.0)]
    [0.5, 1.0, 0.5, 0.0]
    """
    if share < WARM_UP:
        return share / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP)))


def averaging(decay: float) -> _UpdateAverage:
    """For ``AveragedModel``: an exponential moving average that begins short.

    A small data set has fewer steps than the average is long.
    """

    @torch.no_grad()
    def update(means: Sequence[Tensor], currents: Sequence[Tensor], updates: Tensor | int) -> None:
        n = float(updates)
        for mean, current in zip(means, currents, strict=True):
            mean.lerp_(current, 1 - min(decay, (1 + n) / (10 + n)))

    return update


def digest_of(arrays: Iterable[NDArray[Any]]) -> str:
    """SHA-256 of the types, shapes and bytes of arrays: what a checkpoint was trained on is all of it."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state by flat names, for a checkpoint."""
    states = optimizer.state_dict()["state"].items()
    return {f"optimizer.{index}.{key}": value for index, state in states for key, value in state.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of :func:`optimizer_tensors`."""
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in under(tensors, "optimizer.").items():
        index, key = name.split(".", 1)
        states.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    # A fused step goes through memory, not through indices: moments must lie in it as their parameters do.
    for parameter, state in optimizer.state.items():
        state.update({key: torch.empty_like(parameter).copy_(value) for key, value in state.items() if key != "step"})


def save_checkpoint(path: Path, tensors: dict[str, Tensor], fingerprint: str, progress: dict[str, Any]) -> None:
    """Write a checkpoint; a stop in mid-write leaves the one before.

    Args:
        path: of the file.
        tensors: by name.
        fingerprint: of everything that whoever goes on must agree with.
        progress: JSON.

    Raises:
        TrainingError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    metadata = {"fingerprint": fingerprint, "progress": json.dumps(progress)}
    try:
        save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, partial, metadata=metadata)
    except SafetensorError as error:  # also of a full disk
        raise TrainingError(f"cannot write the checkpoint {path}: {error}") from error
    partial.replace(path)


def restore_checkpoint(
    path: Path | None, fingerprint: str, load: Callable[[dict[str, Tensor], dict[str, Any]], None]
) -> None:
    """Hand a checkpoint's tensors and progress to ``load``, if there is one.

    Raises:
        TrainingError: it belongs to other settings or data, or cannot be read.
    """
    if path is None or not path.exists():
        return
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("fingerprint") != fingerprint:
                raise TrainingError(f"{path} belongs to other settings or data; delete it or use another folder")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        load(tensors, json.loads(metadata["progress"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, TrainingError):
            raise
        raise TrainingError(f"{path} cannot be read ({error}); delete it to begin anew") from error


def under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
