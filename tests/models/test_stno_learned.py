"""The released small STNO estimates motion: checked on clips whose motion is known exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from data.degrade import imresize
from data.simulate import simulate
from engine.checkpoint import load_network
from metrics import psnr

WEIGHTS = Path(__file__).parents[2] / "checkpoints" / "stno_s.safetensors"
SPEED = 1.8  # GT pixels per frame; key frames two frames apart, x4: 0.9 LR pixels between key frames
BORDER = 8  # GT pixels; pixels that enter the frame there are visible in one key frame only


@pytest.fixture(scope="module")
def network():
    return load_network(WEIGHTS).eval()


def moving_ground(direction: int) -> tuple[Tensor, np.ndarray]:
    """Three frames (3, 3, H, W) with constant motion, and the true LR flow (x, y) from the middle frame to the first."""
    settings = {
        "clips": 1,
        "frames": 3,
        "size": [256, 256],
        "motion": {"drift": [SPEED, SPEED], "direction": direction, "jitter": 0, "warp": 0},
        "objects": {"roads": 0, "vehicles": 0, "buildings": 0},
        "sensor": {"noise": [0, 0], "flicker": 0},
    }
    clip = simulate(None, settings, split="test")[0]
    flow = clip.scene.flow(1, 0)[BORDER:-BORDER, BORDER:-BORDER].mean((0, 1)) / 4
    return torch.stack([clip.frame(index) for index in range(3)]), flow


@pytest.mark.parametrize("direction", [0, 60, 145, 270])
def test_flow_and_intermediate_frame_of_a_known_sub_pixel_shift(network, direction: int) -> None:
    frames, true = moving_ground(direction)
    keys = imresize(frames[::2], scale=0.25).clamp(0, 1)
    with torch.no_grad():
        output = network.forward_training(keys[None], times=(0.5,), size=frames.shape[-2:])

    def nearness(frame: Tensor) -> float:
        return psnr(frame.clamp(0, 1), frames[1], crop=BORDER).item()

    first, last = (imresize(key, size=frames.shape[-2:]) for key in keys)
    ours = nearness(output.frames[0, 1])
    assert ours > nearness((first + last) / 2) + 0.1
    assert ours > max(nearness(first), nearness(last)) + 0.5

    inner = (..., slice(4, -4), slice(4, -4))
    for flow, sign in ((output.flows.t_0, 1), (output.flows.t_1, -1)):
        learned = sign * flow[0, 0][inner].flatten(1).median(1).values.numpy()
        assert learned @ true > 0.9 * np.linalg.norm(learned) * np.linalg.norm(true), "direction"
        assert 0.7 < np.linalg.norm(learned) / np.linalg.norm(true) < 1.3, "size"
