"""Fast weights: an overlay on a machine's biases and couplings that decays and is quickly relearned.

The machine with its fast weights, θ + θ_F, is sampled in place of the machine itself (Tieleman &
Hinton 2009). θ_F are natural parameters by the names of their statistics, as plain tensors.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from gibbsian import precision, tails
from gibbsian.machine import BoltzmannMachine
from gibbsian.moments import Terms
from gibbsian.proper import MARGIN
from gibbsian.units import base as unit

# What the entries of a chain state's `extra` that hold fast weights begin with.
PREFIX = "fast."


def zeros(machine: BoltzmannMachine) -> dict[str, Tensor]:
    """Return fast weights of 0 for every learned bias and coupling.

    Precisions have none: a fast weight could make them negative.
    """
    named = _parameters(machine)
    return {k: torch.zeros_like(p) for k, p in named if p.requires_grad and not unit.is_log(k)}


def _parameters(machine: BoltzmannMachine) -> list[tuple[str, Tensor]]:
    """List the parameters under the names of their statistics, whatever connections are wrapped in."""
    units = [
        (f"units.{i}.{k}", p) for i, u in enumerate(machine.layers) for k, p in u.named_parameters()
    ]
    return units + [(f"connections.{i}.weight", c.weight) for i, c in enumerate(machine.joints)]


class Shifted:
    """A copy of a machine, which takes that machine's parameters plus fast weights at each call of `at`."""

    def __init__(self, machine: BoltzmannMachine) -> None:
        self.machine = machine
        self._moving = copy.deepcopy(machine)
        self._unbounded = tails.Tails(machine).meet()
        moving = zip(_parameters(machine), _parameters(self._moving), strict=True)
        self._pairs = [(k, p, to) for (k, p), (_, to) in moving]

    @torch.no_grad()
    def at(self, fast: Mapping[str, Tensor]) -> BoltzmannMachine:
        """Return the machine at θ + θ_F: one object, which moves with each call.

        Where that would have no finite partition function its couplings are scaled down until it has.
        """
        for k, p, to in self._pairs:
            if k in fast:
                torch.add(p, fast[k], out=to)
            else:
                to.copy_(p)
        if self._unbounded:
            # A look from few starts at each step: what was found before would have to be resumed.
            largest = tails.norm(tails.Tails(self._moving), starts=2, rounds=50)
            if largest > MARGIN:
                for c in self._moving.joints:
                    c.weight.mul_(MARGIN / largest)
        precision.refresh(self._moving)
        return self._moving


def after(
    fast: Mapping[str, Tensor], terms: Terms, weights: Tensor, decay: float, rate: float
) -> dict[str, Tensor]:
    """Return decay · θ_F − rate · Σ_r w_r T(row r): one step down a gradient, given as rows."""
    found = terms.sums(weights, fast)
    moved = {}
    for k, old in fast.items():
        rows, new = found.rows(k), decay * old
        if rows is None:
            new.add_(found[k], alpha=-rate)
        else:
            rows.add_to(new, -rate)
        moved[k] = new
    return moved
