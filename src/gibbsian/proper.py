"""Keeps machines with unbounded units on both sides normalisable while they are trained.

With B = γ_e^−½ W γ_o^−½ over the even and odd layers, Z is finite if ‖B‖₂ < 1. The norm is tracked by
power iteration with a vector kept between updates, and W is scaled down where it comes near 1.
"""

import itertools

import torch
from torch import Tensor

from gibbsian.machine import BoltzmannMachine
from gibbsian.units import base as unit

MARGIN = 0.95
_FIRST_ITERATIONS = 50
_MORE_ITERATIONS = 2


class Keeper:
    """Scales the couplings of a machine so that ‖B‖₂ ≤ `MARGIN` after every update.

    Attributes
    ----------
    vector : Tensor or None
        The power iteration's vector over the even layers; it is part of a run's state.
    """

    def __init__(self, machine: BoltzmannMachine) -> None:
        self.machine = machine
        self.vector: Tensor | None = None
        scales = [unit.tail_precision(u).rsqrt() for u in machine.layers]
        neighbours = itertools.pairwise(scales)
        self.needed = any(bool(a.any()) and bool(b.any()) for a, b in neighbours)

    def keep(self) -> bool:
        """Scale the couplings down if needed, and say whether that was done."""
        if not self.needed:
            return False
        with torch.no_grad():
            norm = self._norm()
            if norm <= MARGIN:
                return False
            for c in self.machine.joints:
                c.weight.mul_(MARGIN / norm)
        return True

    def _norm(self) -> float:
        machine = self.machine
        scales = [unit.tail_precision(u).rsqrt() for u in machine.layers]
        sizes = [machine.sizes[i] for i in machine.parity(0)]
        rounds = _MORE_ITERATIONS
        first = torch.ones(sum(sizes), dtype=scales[0].dtype, device=scales[0].device)
        if self.vector is None:
            self.vector, rounds = first, _FIRST_ITERATIONS
        before = image = self.vector
        for _ in range(rounds):
            before = self.vector
            state = [torch.zeros_like(s) for s in scales]
            for i, part in zip(machine.parity(0), self.vector.split(sizes), strict=True):
                state[i] = part * scales[i]
            for parity in (1, 0):
                for i, f in machine.fields(parity, state).items():
                    state[i] = f * scales[i] * (scales[i] if parity else 1)
            image = torch.cat([state[i] for i in machine.parity(0)])
            size = image.norm()
            # Couplings of zero leave no direction to go on from.
            self.vector = torch.where(size > 0, image / size.clamp(min=1e-30), first)
        # Read once: on a GPU the host waits for it.
        return float(image.norm() / before.norm().clamp(min=1e-30)) ** 0.5
