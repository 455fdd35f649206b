"""Muon (Jordan et al., 2024) for what is a matrix, with the update's size matched to Adam's (Liu et al., "Muon is Scalable", 2025)."""

from collections import defaultdict

import torch
from torch import Tensor


def orthogonal(g: Tensor, steps: int = 5) -> Tensor:
    """[N, r, c] → nearly the closest semi-orthogonal matrices, by a quintic Newton–Schulz iteration in bfloat16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = g.shape[1] > g.shape[2]
    x = g.transpose(1, 2) if tall else g
    x = (x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)).bfloat16().contiguous()
    for _ in range(steps):
        s = torch.bmm(x, x.transpose(1, 2))
        p = b * s + c * torch.bmm(s, s)
        x = a * x + torch.bmm(p, x)
    return (x.transpose(1, 2) if tall else x).float()


class Muon(torch.optim.Optimizer):
    def __init__(self, parameters, lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                shapes[tuple(p.shape)].append(p)
            for shape, parameters in shapes.items():
                updates = []
                for p in parameters:
                    state = self.state[p]
                    mean = state.setdefault("mean", torch.zeros_like(p))
                    mean.mul_(group["momentum"]).add_(p.grad, alpha=1 - group["momentum"])
                    updates.append(p.grad.lerp(mean, group["momentum"]))
                turned = orthogonal(torch.stack(updates)) * (0.2 * max(shape) ** 0.5)
                for p, update in zip(parameters, turned):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])
