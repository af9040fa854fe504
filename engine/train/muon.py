"""Muon: momentum steps whose matrices are made orthogonal, so that every direction of a layer learns as fast.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); the scale that makes its steps as large as
Adam's: Liu et al., "Muon is scalable for LLM training" (arXiv 2502.16982). PyTorch's own takes matrices only; here the weight of
a convolution counts as the matrix (outputs, inputs * kernel). Everything else (biases, slopes, norms, offset convolutions) learns by Adam.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (
    3.4445,
    -4.7750,
    2.0315,
)  # of the quintic that drives singular values to about 1, quickest from small ones
ITERATIONS = 5
MOMENTUM = 0.95
SCALE = 0.2  # root mean square of Adam's typical step, in learning rates
NARROWEST = 3  # matrices with fewer rows or columns are left to Adam


class Muon(torch.optim.Optimizer):
    """Groups with `orthogonal: True` take Muon's steps for their matrices; `betas` and `eps` are Adam's for all others."""

    def __init__(self, groups: Any, lr: float, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "orthogonal": False}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step; weight decay is decoupled, as in AdamW."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                if group["orthogonal"] and is_matrix(parameter):
                    self._orthogonal_step(parameter, gradient, group["lr"])
                else:
                    self._adam_step(parameter, gradient, group)

    def _orthogonal_step(self, parameter: Tensor, gradient: Tensor, lr: float) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        ahead = gradient.lerp(state["momentum"], MOMENTUM).flatten(1)  # Nesterov's
        factor = SCALE * max(ahead.shape) ** 0.5
        parameter.add_(orthogonal(ahead).view_as(parameter), alpha=-lr * factor)

    def _adam_step(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = torch.zeros(())
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        number = state["step"].item()
        state["mean"].lerp_(gradient, 1 - beta1)
        state["square"].lerp_(gradient.square(), 1 - beta2)
        deviation = (state["square"] / (1 - beta2**number)).sqrt_().add_(group["eps"])
        parameter.addcdiv_(state["mean"] / (1 - beta1**number), deviation, value=-group["lr"])


def is_matrix(parameter: Tensor) -> bool:
    return parameter.dim() >= 2 and min(len(parameter), parameter[0].numel()) >= NARROWEST


def orthogonal(matrix: Tensor) -> Tensor:
    """(rows, columns) -> about the nearest matrix whose singular values are 1 (they come out between 0.7 and 1.2)."""
    a, b, c = COEFFICIENTS
    tall = len(matrix) > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x
