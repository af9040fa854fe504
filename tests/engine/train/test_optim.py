"""Optimizers and schedules against closed forms, averaged weights, parameter groups."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from engine.config import ScheduleConfig, StageConfig, TrainConfig
from engine.train.muon import is_matrix, orthogonal
from engine.train.optim import EMA, build_optimizer, learning_rate, set_learning_rate


def rates(steps: int, **schedule: object) -> list[float]:
    config = TrainConfig(steps=steps, lr=1.0, schedule=ScheduleConfig(**schedule))  # type: ignore[arg-type]
    return [learning_rate(step, config) for step in range(steps)]


def test_step_schedule_halves() -> None:
    assert rates(6, kind="step", every=2, gamma=0.5) == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_cosine_falls_from_lr_to_min_lr() -> None:
    values = rates(100, kind="cosine", min_lr=0.1)
    assert values[0] == 1.0 and values == sorted(values, reverse=True)
    assert values[50] == pytest.approx(0.55)
    assert values[-1] == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi * 0.99)))


def test_cosine_restarts_every_period() -> None:
    values = rates(8, kind="cosine", period=4)
    assert values[:4] == values[4:]


def test_schedule_restarts_with_every_stage() -> None:
    schedule = ScheduleConfig(kind="cosine", warmup=2, per_stage=True)
    config = TrainConfig(lr=1.0, schedule=schedule, stages=[StageConfig(6), StageConfig(4)])
    values = [learning_rate(step, config) for step in range(10)]
    assert values[:6] == rates(6, kind="cosine", warmup=2)
    assert values[6:] == rates(4, kind="cosine", warmup=2)


def test_warm_up_is_linear() -> None:
    assert rates(6, warmup=4) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.offset_conv1 = nn.Linear(2, 2)
        self.other = nn.Linear(2, 2)


def test_offset_convolutions_have_a_lower_learning_rate() -> None:
    network = Pair()
    optimizer = build_optimizer(network, TrainConfig(offset_lr=0.1))
    set_learning_rate(optimizer, 0.5)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rate[id(network.other.weight)] == 0.5
    assert rate[id(network.offset_conv1.weight)] == pytest.approx(0.05)


def test_averaged_weights_follow_the_recurrence() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 1.0)
    average = EMA(network, decay=0.5)
    expected = 1.0
    for step in range(1, 20):
        with torch.no_grad():
            network.weight.fill_(float(step))
        average.update(network, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert average.state["weight"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shape", [(16, 144), (64, 16), (32, 32)])
def test_orthogonal_keeps_singular_vectors_and_equalises_values(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
    evened = left.T @ orthogonal(matrix) @ right.T  # diagonal if the singular vectors are unchanged
    assert evened.diagonal().min() > 0.6 and evened.diagonal().max() < 1.3
    assert (evened - evened.diag().diag()).abs().max() < 1e-4 and sizes.max() > 1.5 * sizes.min()


def test_muon_updates_matrices_and_adam_the_other_parameters() -> None:
    """One step from the same gradients: other parameters change as with Adam, matrices by an orthogonalised step."""
    networks = [nn.Sequential(nn.Conv2d(8, 16, 3), nn.PReLU(), nn.Conv2d(16, 2, 1)) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    before = {name: tensor.clone() for name, tensor in networks[0].state_dict().items()}
    x = torch.randn(2, 8, 6, 6)
    for network, kind in zip(networks, ("adam", "muon"), strict=True):
        optimizer = build_optimizer(network, TrainConfig(optimizer=kind, lr=0.01))  # type: ignore[arg-type]
        network(x).square().mean().backward()
        optimizer.step()
    adam, muon = (network.state_dict() for network in networks)
    for name in before:
        if name != "0.weight":  # the last convolution has only two rows
            torch.testing.assert_close(muon[name], adam[name])
    assert is_matrix(before["0.weight"]) and not is_matrix(before["2.weight"])
    sizes = torch.linalg.svdvals((muon["0.weight"] - before["0.weight"]).flatten(1)) / (0.01 * 0.2 * 72**0.5)
    assert sizes.min() > 0.6 and sizes.max() < 1.3


def test_muon_converges_faster_than_adam_on_ill_conditioned_inputs() -> None:
    """Inputs are a hundred times weaker in some directions that are not axes; Adam scales each axis only."""
    torch.manual_seed(0)
    goal, turn = torch.randn(16, 16), torch.linalg.qr(torch.randn(16, 16))[0]
    x = torch.randn(256, 16) * torch.logspace(0, -2, 16) @ turn
    errors = {}
    for kind in ("adam", "muon"):
        layer = nn.Linear(16, 16, bias=False)
        nn.init.zeros_(layer.weight)
        config = TrainConfig(optimizer=kind, lr=0.02, steps=300, schedule=ScheduleConfig(kind="cosine"))
        optimizer = build_optimizer(layer, config)
        for step in range(config.steps):
            set_learning_rate(optimizer, learning_rate(step, config))
            optimizer.zero_grad()
            (layer(x) - x @ goal.T).square().mean().backward()
            optimizer.step()
        errors[kind] = (layer.weight - goal).square().mean().item()
    assert errors["muon"] < errors["adam"]


@pytest.mark.parametrize("shape", [(3, 10, 6), (2, 4, 9)])
def test_batched_orthogonalisation_equals_single_matrices(shape):
    """On a GPU all matrices of one shape form one batch."""
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([orthogonal(matrix) for matrix in matrices])
    assert (orthogonal(matrices) - expected).abs().max() < 1e-5
