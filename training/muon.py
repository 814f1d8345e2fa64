"""Muon: steps for matrices, in the direction of the gradient with all singular values made equal.

As Keller Jordan describes it (kellerjordan.github.io/posts/muon), with decoupled weight decay.
torch.optim.Muon computes in bfloat16 whatever the machine: without instructions for it, five times
as long as the rest of a step. This one takes the dtype, and matrices of one shape together.
"""

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

_QUINTIC = (3.4445, -4.7750, 2.0315)  # steepest at 0; sends singular values to between 0.7 and 1.2
_ITERATIONS = 4


def orthogonalised(matrices: Tensor) -> Tensor:
    """About U Vᵀ of each matrix U S Vᵀ (n, rows, columns), by Newton and Schulz's iteration."""
    a, b, c = _QUINTIC
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    x = x / x.float().norm(dim=(1, 2), keepdim=True).clamp(min=1e-7).to(x)  # singular values ≤ 1
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """For matrices; Nesterov's momentum. The rate of tall ones grows with √(rows / columns)."""

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float,
        dtype: torch.dtype,
        momentum: float = 0.95,
    ):
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(matrices, defaults)
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step of every matrix that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape[matrix.shape].append(matrix)
            for (rows, columns), alike in by_shape.items():
                updates = torch.stack([self._momentum(m, group["momentum"]) for m in alike])
                rate = group["lr"] * math.sqrt(max(1, rows / columns))
                directions = orthogonalised(updates.to(self.dtype)).to(updates)
                for matrix, direction in zip(alike, directions, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(direction, alpha=-rate)

    def _momentum(self, matrix: nn.Parameter, momentum: float) -> Tensor:
        state = self.state[matrix]
        if not state:
            state["mean"] = torch.zeros_like(matrix)
        return matrix.grad.lerp(state["mean"].lerp_(matrix.grad, 1 - momentum), momentum)
