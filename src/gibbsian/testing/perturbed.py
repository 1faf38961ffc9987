"""Machines and units away from their defaults, where mistakes show."""

import copy
from typing import TypeVar

import torch
from torch import Generator, nn

M = TypeVar("M", bound=nn.Module)


def perturbed(module: M, scale: float = 0.5, seed: int = 0) -> M:
    """Return a float64 copy with scale · N(0, 1) added to every parameter, learned or fixed.

    With all parameters at 0 most mistakes are invisible (a transposed W, γ for 1/γ, σ for σ²).

    Parameters
    ----------
    module : nn.Module
        Units, a connection or a machine.
    scale : float
        Standard deviation of what is added.
    seed : int
        Seed of the noise.
    """
    generator = Generator().manual_seed(seed)
    copied = copy.deepcopy(module).double()
    with torch.no_grad():
        for p in copied.parameters():
            p.add_(torch.randn(p.shape, generator=generator, dtype=p.dtype), alpha=scale)
    return copied
