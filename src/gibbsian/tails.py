"""Tails of machines with unbounded units on both sides: in which direction, and how nearly, Z diverges.

Far out the energy is ½ Σ γ s² − s_eᵀ W s_o over unbounded units. With u = γ_e^½ s_e, w = γ_o^½ s_o and
B = γ_e^−½ W γ_o^−½ it grows in every direction, and Z is finite, if u·B w < 1 for all unit vectors u and w
that states can grow along: rectified units grow upwards only.
"""

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from gibbsian.units import base as unit

if TYPE_CHECKING:
    from gibbsian.machine import BoltzmannMachine

_TINY = 1e-30


class Tails:
    """The map B of a machine, restricted to directions that states can grow along.

    Parameters
    ----------
    machine : BoltzmannMachine
        Its precisions are read at once, its couplings when they are needed.
    """

    def __init__(self, machine: "BoltzmannMachine") -> None:
        self.machine = machine
        self.scales = [unit.tail_precision(u).rsqrt() for u in machine.layers]
        self.upwards = [
            unit.one_sided(u).to(s.device) for u, s in zip(machine.layers, self.scales, strict=True)
        ]

    def meet(self) -> bool:
        """Tell whether unbounded units meet at all; else every direction is safe."""
        return any(bool(a.any()) and bool(b.any()) for a, b in pairwise(self.scales))

    def is_cone(self) -> bool:
        """Tell whether some unbounded units grow upwards only."""
        parts = zip(self.upwards, self.scales, strict=True)
        return any(bool((up & (s > 0)).any()) for up, s in parts)

    def starts(self, count: int, seed: int) -> Float[Tensor, "count even"]:
        """Draw directions of the even layers."""
        width = sum(self.machine.sizes[i] for i in self.machine.parity(0))
        source = torch.Generator().manual_seed(seed)
        return torch.randn(count, width, generator=source).to(self.scales[0])

    def ascend(
        self, u: Float[Tensor, "k even"], rounds: int
    ) -> tuple[Float[Tensor, "k even"], Float[Tensor, "k odd"], Float[Tensor, " k"]]:
        """Raise u·B w from each of k directions, by turns over w and u.

        Each turn takes the best unit vector for the other one, so the value never falls. Without rectified
        units this is the power iteration, which finds the largest singular value; with them it ends in a
        local maximum, and the largest of many is wanted.

        Returns
        -------
        u, w : Tensor (k, even), (k, odd)
            Unit vectors; 0 where no direction is left.
        values : Tensor (k,)
            u·B w.
        """
        w, values = u, u.norm(dim=1)
        for _ in range(rounds):
            w = self._turn(u, 0, 1)
            w = w / w.norm(dim=1, keepdim=True).clamp(min=_TINY)
            u = self._turn(w, 1, 0)
            values = u.norm(dim=1)
            u = u / values[:, None].clamp(min=_TINY)
        return u, w, values

    def parts(self, x: Float[Tensor, "k width"], parity: int) -> dict[int, Tensor]:
        """Split directions of one parity into those of its layers."""
        layers = list(self.machine.parity(parity))
        return dict(
            zip(layers, x.split([self.machine.sizes[i] for i in layers], dim=1), strict=True)
        )

    def _turn(self, x: Tensor, have: int, want: int) -> Tensor:
        """Map directions of one parity to the other, where states can grow along them."""
        state = [torch.zeros(len(x), n, dtype=x.dtype, device=x.device) for n in self.machine.sizes]
        for i, part in self.parts(x, have).items():
            state[i] = part * self.scales[i]
        found = []
        for i, f in self.machine.fields(want, state).items():
            f = f * self.scales[i]
            found.append(torch.where(self.upwards[i], f.clamp(min=0), f))
        return torch.cat(found, dim=1)


def norm(tails: Tails, starts: int = 32, rounds: int = 200) -> float:
    """Return the largest value of u·B w that is found from so many starts."""
    with torch.no_grad():
        return float(tails.ascend(tails.starts(starts, seed=0), rounds)[2].max())
