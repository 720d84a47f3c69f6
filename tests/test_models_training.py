"""What both trainings share: the pace, the average, and checkpoints that are whole or refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from models.training import (
    WARM_UP,
    averaging,
    load_optimizer,
    optimizer_tensors,
    pace,
    restore_checkpoint,
    save_checkpoint,
    under,
)
from quantization.errors import TrainingError

torch.set_num_threads(1)
TENSORS = {"model.weight": torch.arange(6.0).reshape(2, 3), "rng": torch.get_rng_state()}
PROGRESS = {"epoch": 3, "best": 0.1 + 0.2}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "new" / "run.safetensors"
    save_checkpoint(path, TENSORS, "fingerprint", PROGRESS)
    return path


class Loaded:
    """What a training was given to go on with, if anything."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] | None = None
        self.progress: dict[str, Any] | None = None

    def __call__(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        self.tensors, self.progress = tensors, progress


def test_what_is_saved_is_what_is_restored(checkpoint):
    loaded = Loaded()
    restore_checkpoint(checkpoint, "fingerprint", loaded)
    assert loaded.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(loaded.tensors[name], TENSORS[name]) for name in TENSORS)
    assert loaded.progress == PROGRESS
    assert [path.name for path in checkpoint.parent.iterdir()] == ["run.safetensors"], "nothing half-written is left"


def test_tensors_that_share_memory_or_lie_across_it_are_saved_too(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3)
    given = {"weight": weight, "again": weight, "turned": weight.T}
    save_checkpoint(tmp_path / "run.safetensors", given, "fingerprint", {})
    loaded = Loaded()
    restore_checkpoint(tmp_path / "run.safetensors", "fingerprint", loaded)
    assert all(torch.equal(loaded.tensors[name], given[name]) for name in given)


def test_a_write_that_fails_leaves_the_checkpoint_before(checkpoint):
    before = checkpoint.read_bytes()
    checkpoint.with_suffix(".partial").mkdir()  # where the new one would be written
    with pytest.raises(TrainingError, match=r"cannot write the checkpoint .*new/run\.safetensors: .*directory"):
        save_checkpoint(checkpoint, TENSORS, "fingerprint", {"epoch": 4})
    assert checkpoint.read_bytes() == before


def test_where_there_is_no_checkpoint_a_training_begins(tmp_path):
    loaded = Loaded()
    restore_checkpoint(None, "fingerprint", loaded)
    restore_checkpoint(tmp_path / "run.safetensors", "fingerprint", loaded)
    assert loaded.tensors is None


def refusal(path: Path) -> str:
    """What is said of a checkpoint, which must be named; nothing of it was loaded."""
    loaded = Loaded()
    with pytest.raises(TrainingError) as caught:
        restore_checkpoint(path, "fingerprint", loaded)
    assert loaded.tensors is None
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("metadata", [{"fingerprint": "another"}, {"progress": "{}"}, None])
def test_a_checkpoint_of_something_else_is_refused(tmp_path, metadata):
    path = tmp_path / "run.safetensors"
    save_file(TENSORS, path, metadata=metadata)
    assert "other settings or data" in refusal(path)


@pytest.mark.parametrize("damage", ["empty", "text", "half", "header", "folder"])
def test_a_damaged_checkpoint_is_refused(checkpoint, damage):
    data = checkpoint.read_bytes()
    checkpoint.unlink()
    if damage == "folder":
        checkpoint.mkdir()
    else:
        damaged = {"empty": b"", "text": b"no tensors", "half": data[: len(data) // 2], "header": data[:9] + data[10:]}
        checkpoint.write_bytes(damaged[damage])
    assert "cannot be read" in refusal(checkpoint)


@pytest.mark.parametrize("progress", [None, "", "{", "3 epochs"])
def test_a_checkpoint_without_its_progress_is_refused(checkpoint, progress):
    metadata = {"fingerprint": "fingerprint"} | ({} if progress is None else {"progress": progress})
    save_file(TENSORS, checkpoint, metadata=metadata)
    assert "cannot be read" in refusal(checkpoint)


@pytest.mark.parametrize(
    "error", [KeyError("epoch"), TypeError("a list"), ValueError("no number"), RuntimeError("size")]
)
def test_a_checkpoint_that_a_training_cannot_use_is_refused(checkpoint, error):
    def load(_tensors: dict[str, Tensor], _progress: dict[str, Any]) -> None:
        raise error

    with pytest.raises(TrainingError, match="cannot be read") as caught:
        restore_checkpoint(checkpoint, "fingerprint", load)
    assert str(checkpoint) in str(caught.value)
    assert caught.value.__cause__ is error


def test_under_a_prefix():
    a, b = torch.zeros(1), torch.ones(1)
    assert under({"model.a": a, "model.model.b": b, "models.c": a, "a": b}, "model.") == {"a": a, "model.b": b}


def train(network: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for number in steps:
        optimizer.zero_grad()
        network(torch.full((2, 3, 8, 8), 1.0 + number)).square().mean().backward()
        optimizer.step()


def new_training() -> tuple[nn.Module, torch.optim.Optimizer]:
    """The second group has no state of its own yet, as a curve that does not learn."""
    torch.manual_seed(1)
    network = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    frozen = nn.Parameter(torch.ones(2))
    groups = [{"params": list(network.parameters())}, {"params": [frozen], "weight_decay": 0.0}]
    return network, torch.optim.AdamW(groups, lr=0.1, fused=True)


def test_an_optimizer_goes_on_where_it_was(tmp_path):
    """Also with weights that lie in memory with their channels last."""
    whole, optimizer = new_training()
    train(whole, optimizer, range(5))

    first, optimizer = new_training()
    train(first, optimizer, range(3))
    path = tmp_path / "run.safetensors"
    save_checkpoint(path, first.state_dict() | optimizer_tensors(optimizer), "fingerprint", {})

    second, optimizer = new_training()

    def load(tensors: dict[str, Tensor], _progress: dict[str, Any]) -> None:
        load_optimizer(optimizer, tensors)
        second.load_state_dict({name: tensors[name] for name in second.state_dict()})

    restore_checkpoint(path, "fingerprint", load)
    moments = optimizer.state[second.weight]["exp_avg"]
    assert moments.is_contiguous(memory_format=torch.channels_last)
    train(second, optimizer, range(3, 5))
    assert torch.equal(second.weight, whole.weight)
    assert torch.equal(second.bias, whole.bias)
    assert not torch.equal(first.weight, whole.weight)


def test_the_pace_rises_then_falls_to_nothing():
    paces = [pace(step / 1000) for step in range(1001)]
    peak = round(1000 * WARM_UP)
    assert paces[:peak] == sorted(paces[:peak])
    assert paces[peak:] == sorted(paces[peak:], reverse=True)
    assert (paces[0], paces[peak]) == (0.0, 1.0)
    assert paces[-1] == pytest.approx(0.0, abs=1e-12)


def test_the_average_begins_short_and_becomes_as_long_as_asked():
    """At first it is where the network is; in the end it forgets at the rate of its decay."""
    network = nn.Linear(1, 1, bias=False)
    average = AveragedModel(network, multi_avg_fn=averaging(0.9))

    def after(value: float) -> float:
        with torch.no_grad():
            network.weight.fill_(value)
        average.update_parameters(network)
        return average.module.weight.item()

    assert after(1.0) == 1.0, "the first is taken as it is"
    assert after(0.0) == pytest.approx(2 / 11)
    for _ in range(200):
        after(0.0)
    last = after(1.0)
    assert after(0.0) == pytest.approx(0.9 * last)
