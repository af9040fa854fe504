"""Muon: momentum steps with orthogonalised matrices, so that all directions of a layer learn equally fast.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); the scale that matches Adam's
step size: Liu et al., "Muon is scalable for LLM training" (arXiv 2502.16982). PyTorch's Muon accepts matrices
only; here the weight of a convolution is reshaped to a matrix (outputs, inputs * kernel). All other parameters (biases, slopes,
norms, offset convolutions) are trained with Adam.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# A quintic that drives singular values to about 1, small ones fastest (Jordan et al.)
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5  # of Newton-Schulz
MOMENTUM = 0.95  # as published
SCALE = 0.2  # root mean square of Adam's typical step, in learning rates
NARROWEST = 3  # matrices with fewer rows or columns are trained with Adam


class Muon(torch.optim.Optimizer):
    """Groups with `orthogonal: True` use Muon for their matrices; `betas` and `eps` are Adam's for all others."""

    def __init__(self, groups: Any, lr: float, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "orthogonal": False}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step; weight decay is decoupled, as in AdamW."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            matrices = [parameter for parameter in parameters if group["orthogonal"] and is_matrix(parameter)]
            chosen = set(map(id, matrices))
            self._orthogonal_steps(matrices, group["lr"])
            self._adam_steps([parameter for parameter in parameters if id(parameter) not in chosen], group)

    def _orthogonal_steps(self, parameters: list[Tensor], lr: float) -> None:
        ahead: dict[tuple[torch.Size, torch.device], list[tuple[Tensor, Tensor]]] = {}
        for parameter in parameters:
            state, gradient = self.state[parameter], parameter.grad
            assert gradient is not None
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].lerp_(gradient, 1 - MOMENTUM)
            matrix = gradient.lerp(state["momentum"], MOMENTUM).flatten(1)  # Nesterov's
            ahead.setdefault((matrix.shape, matrix.device), []).append((parameter, matrix))
        for (shape, device), pairs in ahead.items():
            factor = SCALE * max(shape) ** 0.5
            # On a GPU all matrices of one shape are one batch: single ones are too small to fill it. On a CPU a batch saves nothing.
            for some in [pairs] if device.type == "cuda" else [[pair] for pair in pairs]:
                single = len(some) == 1
                steps = [orthogonal(some[0][1])] if single else orthogonal(torch.stack([m for _, m in some])).unbind()
                for (parameter, _), step in zip(some, steps, strict=True):
                    parameter.add_(step.view_as(parameter), alpha=-lr * factor)

    def _adam_steps(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        if not parameters:
            return
        (beta1, beta2), states = group["betas"], [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state["step"] = torch.zeros(())  # on the CPU, so that reading it does not wait for a GPU
                state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            state["step"] += 1
        numbers = [state["step"].item() for state in states]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        means, squares = [state["mean"] for state in states], [state["square"] for state in states]
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - beta2)
        deviations = torch._foreach_div(squares, [1 - beta2**number for number in numbers])
        torch._foreach_sqrt_(deviations)
        torch._foreach_add_(deviations, group["eps"])
        corrected = torch._foreach_div(means, [1 - beta1**number for number in numbers])
        torch._foreach_addcdiv_(parameters, corrected, deviations, -group["lr"])


def is_matrix(parameter: Tensor) -> bool:
    return parameter.dim() >= 2 and min(len(parameter), parameter[0].numel()) >= NARROWEST


def orthogonal(matrix: Tensor) -> Tensor:
    """Approximate the nearest (semi-)orthogonal matrix to (..., rows, columns) by Newton-Schulz iterations.

    They need matrix products only, unlike an SVD. The singular values of the result are between 0.7 and 1.2.
    """
    a, b, c = COEFFICIENTS
    # The iteration needs singular values of at most 1, and the smaller Gram matrix is cheaper.
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7 if x.dim() > 2 else x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
