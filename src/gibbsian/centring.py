"""Centred coordinates: the optimiser works in them, the distribution never changes.

Written with s_l − μ_l in place of s_l, the energy has the same couplings W, biases a' with
b_l = a'_l − Σ W μ (over the neighbours of layer l) and, for real units, the linear parameter
θ = θ' + γ μ. Gradients with respect to the primed parameters are decorrelated from those of W
(Montavon & Müller 2012; Melchior, Fischer & Wiskott 2016). A step is taken there by any optimiser,
and mapped back. For plain gradient ascent this is the centred gradient

    ∂W = ⟨(v−μ_v)(h−μ_h)ᵀ⟩_D − ⟨(v−μ_v)(h−μ_h)ᵀ⟩_M,   ∂a = Δ⟨v⟩ − ∂W μ_h,   ∂b = Δ⟨h⟩ − ∂Wᵀ μ_v.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from gibbsian.machine import BoltzmannMachine, Statistics
from gibbsian.units import base as unit
from gibbsian.units.base import Units


def pull_back(
    machine: BoltzmannMachine, gradient: Statistics, offsets: Sequence[Tensor]
) -> Statistics:
    """Turn a gradient with respect to the machine's parameters into one for centred coordinates.

    `gradient` and the result are keyed by parameter name; `offsets` hold μ_l, one a layer. It is
    the transposed Jacobian of the map back, Aᵀ·gradient.
    """
    out = dict(gradient)
    slopes = _bias_gradients(machine, gradient)
    for i, c in enumerate(machine.joints):
        name = f"connections.{i}.weight"
        if name in out:
            low, high = slopes[i], slopes[i + 1]
            # Two outer products in one: the statistics of a batch of two, weighted 1 and 1.
            ones = offsets[i].new_ones(2)
            below = torch.stack([low, offsets[i]])
            above = torch.stack([offsets[i + 1], high])
            out[name] = out[name] - c.statistics(below, above, ones)
    for prefix, leaf, mu in _leaves(machine, offsets):
        if f"{prefix}log_precision" in out and f"{prefix}bias" in gradient:
            scale = unit.natural(leaf)["log_precision"].detach()
            name = f"{prefix}log_precision"
            out[name] = out[name] + scale * mu * gradient[f"{prefix}bias"]
    return out


class Step:
    """Maps one optimiser step, taken in centred coordinates, back to the machine's parameters.

    ``with Step(machine, offsets): optimizer.step()`` changes couplings and precisions by what the
    optimiser says, and the linear parameters by that minus what the moved offsets explain.
    """

    def __init__(self, machine: BoltzmannMachine, offsets: Sequence[Tensor]) -> None:
        self.machine, self.offsets = machine, offsets

    def __enter__(self) -> None:
        self._before = self._explained()

    def __exit__(self, *error: object) -> None:
        after = self._explained()
        with torch.no_grad():
            for (bias, new), (_, old) in zip(after, self._before, strict=True):
                bias.add_(new).sub_(old)

    def _explained(self) -> list[tuple[Tensor, Tensor]]:
        """List each learned bias with the part of it that the offsets explain: γ μ − Σ W μ."""
        machine, out = self.machine, []
        with torch.no_grad():
            pulls = [machine.field(i, self.offsets) for i in range(len(machine.layers))]
            for (_, leaf, mu), (_, _, pull) in zip(
                _leaves(machine, self.offsets), _leaves(machine, pulls), strict=True
            ):
                bias = leaf.get_parameter("bias")
                if bias.requires_grad:
                    part = -pull
                    precision = dict(leaf.named_parameters()).get("log_precision")
                    if precision is not None and precision.requires_grad:
                        part = part + precision.exp() * mu
                    out.append((bias, part))
        return out


def _leaves(
    machine: BoltzmannMachine, rows: Sequence[Tensor]
) -> Iterator[tuple[str, Units, Tensor]]:
    """Walk over the families of all layers with their parameter prefix and their part of `rows`."""
    for i, (u, row) in enumerate(zip(machine.layers, rows, strict=True)):
        yield from _split(f"units.{i}.", u, row)


def _split(prefix: str, units: Units, row: Tensor) -> Iterator[tuple[str, Units, Tensor]]:
    parts = unit.members(units)
    if not parts:
        yield prefix, units, row
        return
    for i, (m, piece) in enumerate(zip(parts, row.split([m.size for m in parts]), strict=True)):
        yield from _split(f"{prefix}members.{i}.", m, piece)


def _bias_gradients(machine: BoltzmannMachine, gradient: Mapping[str, Tensor]) -> list[Tensor]:
    """Return ∂/∂b of each layer as one row, zero where the linear parameter is not learned.

    Layers whose linear parameter is fixed cannot move to compensate, so they are not centred.
    """
    rows = []
    for i, u in enumerate(machine.layers):
        like = next(u.parameters())
        pieces = [
            gradient.get(f"{prefix}bias", like.new_zeros(leaf.size))
            for prefix, leaf, _ in _split(f"units.{i}.", u, like.new_zeros(u.size))
        ]
        rows.append(pieces[0] if len(pieces) == 1 else torch.cat(pieces))
    return rows


def learnable_offsets(machine: BoltzmannMachine, offsets: Sequence[Tensor]) -> list[Tensor]:
    """Return offsets set to zero next to a layer whose linear parameter is fixed.

    Subtracting μ_l shifts the biases of the neighbours of layer l; where such a bias is fixed (the
    hidden layer of a Hopfield model), μ_l must stay 0 or the distribution would change.
    """
    fixed = [
        any(not leaf.get_parameter("bias").requires_grad for _, leaf, _ in _split("", u, o))
        for u, o in zip(machine.layers, offsets, strict=True)
    ]
    return [
        torch.zeros_like(o) if any(fixed[max(i - 1, 0) : i] + fixed[i + 1 : i + 2]) else o
        for i, o in enumerate(offsets)
    ]
