"""What every recognition network must hold to. One list, run on all of them."""

from dataclasses import replace

import pytest
import torch

from models.har import NETWORKS, HarConfig, build
from quantization.errors import BundleError

torch.set_num_threads(1)
KINDS = sorted(NETWORKS)
SIZES = {
    "attention": (40_000, 80_000),
    "cnn": (40_000, 60_000),
    "deepconvlstm": (350_000, 400_000),
    "tinier": (1_000, 10_000),
    "tinyhar": (60_000, 160_000),
}


def network(kind: str, channels: int = 6, classes: int = 5, window: int = 50) -> torch.nn.Module:
    torch.manual_seed(0)
    made = build(HarConfig(kind, channels, classes, window))
    with torch.no_grad():  # as after some training: batch statistics that are not 0 and 1
        made.train()
        for _ in range(3):
            made(torch.rand(8, window, channels) * 2 - 1)
    return made.eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("channels", "window", "classes"), [(1, 8, 2), (3, 100, 18), (6, 50, 5), (16, 33, 2)])
def test_shapes(kind, channels, window, classes):
    made = network(kind, channels, classes, window)
    assert made.config == HarConfig(kind, channels, classes, window)
    for batch in (1, 3):
        logits = made(torch.rand(batch, window, channels))
        assert logits.shape == (batch, classes)
        assert logits.dtype == torch.float32
        assert bool(torch.isfinite(logits).all())


@pytest.mark.parametrize("kind", KINDS)
def test_size(kind):
    made = network(kind)
    low, high = SIZES[kind]
    assert low < made.parameter_count() < high
    assert made.parameter_count() == sum(p.numel() for p in made.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_depends_on_its_window_alone(kind):
    made = network(kind)
    windows = torch.rand(7, 50, 6) * 2 - 1
    together = made(windows)
    assert torch.equal(together, made(windows)), "deterministic"
    alone = torch.cat([made(window[None]) for window in windows])
    assert torch.allclose(together, alone, atol=1e-5)
    others = torch.cat([windows[:1], torch.full((6, 50, 6), 1.0)])
    assert torch.allclose(made(others)[0], together[0], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_every_parameter_and_the_input(kind):
    made = network(kind).train()
    x = (torch.rand(16, 50, 6) * 2 - 1).requires_grad_()
    torch.nn.functional.cross_entropy(made(x), torch.arange(16) % 5).backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert bool((parameter.grad != 0).any()), name
    assert bool((x.grad != 0).any()), "the quantizer learns through the network"


@pytest.mark.parametrize("kind", KINDS)
def test_order_in_time_matters(kind):
    made = network(kind)
    windows = torch.rand(4, 50, 6) * 2 - 1
    assert not torch.allclose(made(windows), made(windows.flip(1)), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_to_tell_two_movements_apart(kind):
    torch.manual_seed(0)
    made = build(HarConfig(kind, 3, 2, 32, dropout=0.0))
    optimizer = torch.optim.AdamW(made.parameters(), lr=5e-3)
    time = torch.arange(32)[None, :, None] * torch.tensor([0.3, 1.1]).repeat(32)[:, None, None]
    for _ in range(40):
        x = torch.sin(time + 6.28 * torch.rand(64, 1, 3)) + 0.2 * torch.randn(64, 32, 3)
        loss = torch.nn.functional.cross_entropy(made(x), torch.tensor([0, 1]).repeat(32))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_window_is_no_trouble(kind):
    assert bool(torch.isfinite(network(kind)(torch.zeros(2, 50, 6))).all())


@pytest.mark.parametrize(
    "change",
    [
        {"channels": 0},
        {"channels": 17},
        {"classes": 1},
        {"classes": 257},
        {"window": 7},
        {"window": 4097},
        {"window": 10**12},
        {"dropout": -0.1},
        {"dropout": 1.0},
        {"dropout": float("nan")},
        {"kind": "resnet"},
    ],
)
def test_configs_that_build_nothing(change):
    with pytest.raises(BundleError):
        build(replace(HarConfig("cnn", 6, 5, 50), **change))


def test_config_round_trip():
    config = HarConfig("tinier", 3, 18, 100, dropout=0.5)
    assert HarConfig(**config.to_dict()) == config
