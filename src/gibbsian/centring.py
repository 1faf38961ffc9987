"""Centred coordinates: the optimiser works in them, the distribution never changes.

Written with s_l − μ_l in place of s_l, the energy has the same couplings W, biases a' with
b_l = a'_l − Σ W μ (over the neighbours of layer l) and, for real units, the linear parameter
θ = θ' + γ μ. Gradients with respect to the primed parameters are decorrelated from those of W
(Montavon & Müller 2012; Melchior, Fischer & Wiskott 2016). A step is taken there by any optimiser,
and mapped back. For plain gradient ascent this is the centred gradient

    ∂W = ⟨(v−μ_v)(h−μ_h)ᵀ⟩_D − ⟨(v−μ_v)(h−μ_h)ᵀ⟩_M,   ∂a = Δ⟨v⟩ − ∂W μ_h,   ∂b = Δ⟨h⟩ − ∂Wᵀ μ_v.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gibbsian.machine import BoltzmannMachine
from gibbsian.moments import Moments, Rows
from gibbsian.units import base as unit
from gibbsian.units.base import Units


@dataclass(frozen=True)
class _Leaf:
    """A family's columns of its layer, its parameters' prefix, and those that are learned."""

    columns: slice
    prefix: str
    bias: Tensor | None
    log_precision: Tensor | None


class Centring:
    """The centred coordinates of a machine; offsets μ_l are handed in, one row a layer.

    Which parameters are learned is looked up once.
    """

    def __init__(self, machine: BoltzmannMachine) -> None:
        self.machine = machine
        self._leaves = [list(_leaves(f"units.{i}.", u, 0)) for i, u in enumerate(machine.layers)]
        self._couplings = [
            f"connections.{i}.weight" if c.weight.requires_grad else None
            for i, c in enumerate(machine.joints)
        ]
        fixed = [any(leaf.bias is None for leaf in layer) for layer in self._leaves]
        self._still = [
            any(fixed[max(i - 1, 0) : i] + fixed[i + 1 : i + 2]) for i in range(len(fixed))
        ]
        learned = [leaf for layer in self._leaves for leaf in layer if leaf.bias is not None]
        self.is_linear = all(leaf.log_precision is None for leaf in learned)

    def allowed(self, offsets: Sequence[Tensor]) -> list[Tensor]:
        """Return offsets set to zero next to a layer whose linear parameter is fixed.

        Subtracting μ_l shifts the biases of the neighbours of layer l; where such a bias is fixed (the
        hidden layer of a Hopfield model), μ_l must stay 0 or the distribution would change.
        """
        pairs = zip(offsets, self._still, strict=True)
        return [torch.zeros_like(o) if still else o for o, still in pairs]

    def pull_back(self, gradient: Mapping[str, Tensor], offsets: Sequence[Tensor]) -> Moments:
        """Turn a gradient with respect to the machine's parameters into one for the coordinates.

        Both are keyed by parameter name. It is the transposed Jacobian of the map back, Aᵀ·gradient.
        Couplings kept as rows stay so: the biases' gradients must then be the sums over the same rows, and
        the weights must sum to 0, as those of both phases do. Centring the rows is then all.
        """
        kept = isinstance(gradient, Moments)
        out: dict[str, Tensor | Rows] = gradient.entries() if kept else dict(gradient)
        for i, name in enumerate(self._couplings):
            if name is None:
                continue
            low, high = offsets[i], offsets[i + 1]
            rows = gradient.rows(name) if kept else None
            if rows is not None:
                out[name] = rows.centred(low, high)
            else:
                # Two outer products: the statistics of a batch of two, weighted 1 and 1.
                below = torch.stack([self._slope(gradient, i, low), low])
                above = torch.stack([high, self._slope(gradient, i + 1, high)])
                pair = Rows(self.machine.joints[i], below, above, below.new_ones(2))
                out[name] = gradient[name] - pair.total()
        for layer, mu in zip(self._leaves, offsets, strict=True):
            for leaf in layer:
                if leaf.log_precision is not None and leaf.bias is not None:
                    name = f"{leaf.prefix}log_precision"
                    slope = gradient[f"{leaf.prefix}bias"]
                    scale = leaf.log_precision.exp() * mu[leaf.columns]
                    out[name] = gradient[name] + scale * slope
        return Moments(out)

    def push_forward(self, step: Moments, offsets: Sequence[Tensor]) -> dict[str, Tensor]:
        """Turn a step in the coordinates into one of the machine's parameters, A·step, in place.

        That is exact where the map is linear (`is_linear`: no precision is learned); else use `Step`.
        Returns the fields that the steps of couplings make of the offsets, by their names.
        """
        fields = self._fields(offsets, step)
        for layer, pull in zip(self._leaves, _pulls(fields), strict=True):
            for leaf in layer:
                if leaf.bias is not None and pull is not None:
                    name = f"{leaf.prefix}bias"
                    step[name] = step[name] - pull[leaf.columns]
        pairs = zip(self._couplings, fields, strict=True)
        return {name: pair[0] for name, pair in pairs if name is not None and pair is not None}

    def explained(self, offsets: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """List each learned bias with the part of it that the offsets explain: γ μ − Σ W μ."""
        out = []
        pulls = _pulls(self._fields(offsets))
        for layer, pull, mu in zip(self._leaves, pulls, offsets, strict=True):
            for leaf in layer:
                if leaf.bias is None:
                    continue
                part = torch.zeros_like(leaf.bias) if pull is None else -pull[leaf.columns]
                if leaf.log_precision is not None:
                    part = part + leaf.log_precision.exp() * mu[leaf.columns]
                out.append((leaf.bias, part))
        return out

    def _slope(self, gradient: Mapping[str, Tensor], layer: int, like: Tensor) -> Tensor:
        """Return ∂/∂b of a layer as one row, zero where the linear parameter is not learned.

        Layers whose linear parameter is fixed cannot move to compensate, so they are not centred.
        """
        pieces = [
            like.new_zeros(leaf.columns.stop - leaf.columns.start)
            if leaf.bias is None
            else gradient[f"{leaf.prefix}bias"]
            for leaf in self._leaves[layer]
        ]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _fields(
        self, offsets: Sequence[Tensor], step: Moments | None = None
    ) -> list[tuple[Tensor, Tensor] | None]:
        """Return for each learned connection the fields, down and up, of the offsets.

        They are those of the couplings, or of a step of them.
        """
        found: list[tuple[Tensor, Tensor] | None] = []
        for i, (name, joint) in enumerate(zip(self._couplings, self.machine.joints, strict=True)):
            low, high = offsets[i], offsets[i + 1]
            rows = None if step is None or name is None else step.rows(name)
            if name is None:
                found.append(None)
            elif rows is not None:
                found.append(rows.fields(low, high))
            else:
                weight = None if step is None else step[name]
                found.append((joint.down(high, weight), joint.up(low, weight)))
        return found


def _pulls(fields: Sequence[tuple[Tensor, Tensor] | None]) -> list[Tensor | None]:
    """Add up the fields on each layer; None where no learned connection ends."""
    pulls: list[Tensor | None] = [None] * (len(fields) + 1)
    for i, pair in enumerate(fields):
        if pair is not None:
            below = pulls[i]
            pulls[i], pulls[i + 1] = pair[0] if below is None else below + pair[0], pair[1]
    return pulls


class Step:
    """Maps one optimiser step, taken in centred coordinates, back to the machine's parameters.

    ``with Step(centring, offsets): optimizer.step()`` changes couplings and precisions by what the
    optimiser says, and the linear parameters by that minus what the moved offsets explain.
    """

    def __init__(self, centring: Centring, offsets: Sequence[Tensor]) -> None:
        self.centring, self.offsets = centring, offsets

    def __enter__(self) -> None:
        with torch.no_grad():
            self._before = self.centring.explained(self.offsets)

    def __exit__(self, *error: object) -> None:
        with torch.no_grad():
            after = self.centring.explained(self.offsets)
            for (bias, new), (_, old) in zip(after, self._before, strict=True):
                bias.add_(new).sub_(old)


def _leaves(prefix: str, units: Units, first: int) -> Iterator[_Leaf]:
    """Walk over the families of a layer whose columns begin at `first`."""
    parts = unit.members(units)
    for i, m in enumerate(parts):
        yield from _leaves(f"{prefix}members.{i}.", m, first)
        first += m.size
    if not parts:
        learned = {k: p for k, p in units.named_parameters() if p.requires_grad}
        bias, precision = learned.get("bias"), learned.get("log_precision")
        yield _Leaf(slice(first, first + units.size), prefix, bias, precision)
