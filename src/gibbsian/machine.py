"""The one layered machine: RBM, deep Boltzmann machine and Hopfield model alike.

    E(s) = Σ_l e_l(s_l) − Σ_l ⟨s_l, c_l s_{l+1}⟩

with units u_0 (visible) … u_L and connections c_l between layers l and l + 1. Layers of one parity
are independent given the other parity, so either parity can be summed out in closed form.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from gibbsian import tails
from gibbsian import units as families
from gibbsian.connections import Connection
from gibbsian.errors import GibbsianError
from gibbsian.moments import Moments, Terms, shares
from gibbsian.units import base as unit
from gibbsian.units.base import Units

State = tuple[Tensor, ...]


@dataclass(frozen=True)
class Clamp:
    """Units of one layer that are held: where `mask` is true the state is `value`.

    `mask` has shape (n,) or (chains, n), and so has `value`, whichever the other has. Blocks of
    one-of-K units are held whole or not at all.
    """

    mask: Bool[Tensor, "*chains n"]
    value: Float[Tensor, "*rows n"]

    def apply(self, s: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """Put the held values into the state `s`."""
        return torch.where(self.mask, self.value.to(s.dtype), s)


Clamps = Mapping[int, Clamp]


class BoltzmannMachine(nn.Module):
    """A Boltzmann machine with layers of any units.

    Parameters
    ----------
    units : sequence of Units
        Layers from the visible one upwards, at least two.
    connections : sequence of Connection
        One between each two neighbouring layers.

    Raises
    ------
    GibbsianError
        If the numbers or the sizes of layers and connections do not fit.
    """

    def __init__(self, units: Sequence[Units], connections: Sequence[Connection]) -> None:
        super().__init__()
        if len(units) < 2 or len(connections) != len(units) - 1:
            raise GibbsianError(
                f"{len(units)} layers need {max(len(units) - 1, 1)} connections and at least two "
                f"layers; {len(connections)} connections were given."
            )
        for i, c in enumerate(connections):
            if (c.lower, c.upper) != (units[i].size, units[i + 1].size):
                raise GibbsianError(
                    f"Connection {i} joins {c.lower} units to {c.upper}, but its layers have "
                    f"{units[i].size} and {units[i + 1].size}; give it the layers' sizes."
                )
        self.units = nn.ModuleList(units)
        self.connections = nn.ModuleList(connections)
        # Plain lists: indexing a ModuleList costs more than a small matrix product.
        self.layers: list[Units] = list(units)
        self.joints: list[Connection] = list(connections)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of units of each layer, from the visible one upwards."""
        return tuple(u.size for u in self.layers)

    def parity(self, parity: int) -> range:
        """Return the layers of one parity: 0 for the even ones (visible first), 1 for the odd."""
        return range(parity, len(self.layers), 2)

    def field(self, layer: int, state: Sequence[Tensor]) -> Float[Tensor, "*batch n"]:
        """Return the field on a layer from the states of its neighbours."""
        fields = []
        if layer > 0:
            fields.append(self.joints[layer - 1].up(state[layer - 1]))
        if layer < len(self.joints):
            fields.append(self.joints[layer].down(state[layer + 1]))
        return fields[0] if len(fields) == 1 else fields[0] + fields[1]

    def fields(self, parity: int, state: Sequence[Tensor]) -> dict[int, Tensor]:
        """Return the fields on all layers of one parity from the states of the other."""
        return {layer: self.field(layer, state) for layer in self.parity(parity)}

    def energy(self, state: Sequence[Tensor]) -> Float[Tensor, "*batch"]:
        """Return E(s) in nats, summed in float64."""
        wide = unit.accumulator(state[0])
        total = torch.stack(
            [unit.energy(u, s) for u, s in zip(self.layers, state, strict=True)]
        ).sum(dim=0)
        for i, c in enumerate(self.joints):
            total = total - (c.up(state[i]) * state[i + 1]).sum(dim=-1, dtype=wide)
        return total

    def marginal_energy(
        self,
        state: Sequence[Tensor],
        summed: int = 1,
        clamps: Clamps | None = None,
        fields: Mapping[int, Tensor] | None = None,
    ) -> Float[Tensor, "*batch"]:
        """Return −log Σ exp(−E(s)) over the layers of parity `summed`, the others as in `state`.

        F = Σ_kept e_l(s_l) − Σ_summed Γ_l(f_l). Held units of a summed layer are not summed over:
        they contribute e(s) − f·s in place of −Γ. For an RBM and ``summed=1`` this is the free
        energy F(v) = e(v) − Σ_j Γ_j((v W)_j).

        Parameters
        ----------
        state : sequence of tensors
            One per layer; those of summed layers are ignored.
        summed : int
            0 or 1, the parity that is summed out.
        clamps : mapping of int to Clamp, optional
            Held units by layer.
        fields : mapping of int to tensor, optional
            Fields on the summed layers where they are known already.
        """
        fields = self.fields(summed, state) if fields is None else fields
        kept = [unit.energy(self.layers[i], state[i]) for i in self.parity(1 - summed)]
        total = torch.stack(kept).sum(dim=0) if len(kept) > 1 else kept[0]
        for i, f in fields.items():
            if not clamps or i not in clamps:
                total = total - unit.log_partition_sum(self.layers[i], f)
                continue
            clamp = clamps[i]
            value = clamp.apply(torch.zeros_like(f))
            held = f * value - unit.energy_terms(self.layers[i], value)
            terms = torch.where(clamp.mask, held, self.layers[i].log_partition(f))
            total = total - terms.sum(dim=-1, dtype=unit.accumulator(f))
        return total

    def free_energy(self, v: Shaped[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        """Return F(v) = −log Σ_h exp(−E(v, h)) of a machine with one hidden layer, in nats.

        `v` may be of any dtype and on any device; it is brought to the machine's.

        Raises
        ------
        GibbsianError
            If the machine has more layers, whose sum has no closed form.
        """
        if len(self.layers) != 2:
            raise GibbsianError(
                "The free energy of the visible layer has a closed form with one hidden layer "
                "only; use marginal_energy with the states of the even layers."
            )
        return self.marginal_energy((v.to(next(self.parameters())),))

    def terms(
        self,
        state: Sequence[Tensor],
        averaged: int | None = 1,
        fields: Mapping[int, Tensor] | None = None,
    ) -> Terms:
        """Return the sufficient statistics of rows of states.

        Layers of parity `averaged` enter by their conditional expectation given the others (their
        entries of `state` are ignored); with ``averaged=None`` all layers enter as they are. `fields` on
        the averaged layers may be handed in where known.
        """
        full = self.joints[0].weight.dtype  # chains may be kept in a narrower one
        values, found = [s.to(full) for s in state], {}
        if averaged is not None:
            values += [values[0]] * (len(self.layers) - len(values))
            fields = self.fields(averaged, state) if fields is None else fields
        for i, u in enumerate(self.layers):
            if fields is not None and averaged is not None and i % 2 == averaged:
                each = u.conditional(fields[i])
                values[i] = unit.state_mean(u, each)
            else:
                each = u.statistics(values[i])
            for k, t in each.items():
                found[f"units.{i}.{k}"] = t
        return Terms(self.joints, values, found)

    def mean_statistics(
        self,
        state: Sequence[Tensor],
        averaged: int | None = 1,
        weights: Float[Tensor, " batch"] | None = None,
        fields: Mapping[int, Tensor] | None = None,
    ) -> Moments:
        """Return the mean of every sufficient statistic under the name of its parameter.

        `state`, `averaged` and `fields` are those of `terms`. `weights`, one a row, are normalised to sum
        to 1 (unless all are 0).
        """
        terms = self.terms(state, averaged, fields)
        return terms.sums(shares(len(state[0]), weights, terms.values[0]))

    def learned(self) -> dict[str, nn.Parameter]:
        """Return the learned parameters by name."""
        return {k: p for k, p in self.named_parameters() if p.requires_grad}

    def gradient(
        self, positive: Mapping[str, Tensor], negative: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the gradient of −log p: differences of mean statistics, model minus data.

        ∂(−log p)/∂η_k = ⟨T_k⟩_model − ⟨T_k⟩_data, times dη/dp for a parameter p = log η. Only
        learned parameters appear.
        """
        out = {}
        for name, p in self.learned().items():
            g = negative[name] - positive[name]
            out[name] = g * p.detach().exp() if unit.is_log(name) else g
        return out

    def is_proper(self) -> bool:
        """Tell whether Z is finite: whether `coupling_norm` is below 1.

        Machines in which units with unbounded values never meet are always proper.
        """
        return self.coupling_norm() < 1

    def coupling_norm(self) -> float:
        """Return the largest u·B w over unit vectors, B = γ_e^−½ W γ_o^−½ over unbounded units.

        The energy grows in every direction, so that Z is finite, where this is below 1. Without rectified
        units it is the spectral norm ‖B‖₂. Rectified units grow upwards only, so their entries of u and w
        are not negative: the value is the largest of the local maxima that are found from 32 fixed
        directions, and may be below the spectral norm. It is 0 where no unbounded units meet, and NaN where
        a coupling is not finite.
        """
        tail = tails.Tails(self)
        if not tail.meet():
            return 0.0
        scales = tail.scales
        even, odd = list(self.parity(0)), list(self.parity(1))
        rows = []
        for i in even:
            blocks = [torch.zeros(self.sizes[i], self.sizes[j]) for j in odd]
            for slot, j in enumerate(odd):
                if abs(i - j) == 1:
                    eye = torch.eye(self.sizes[i], dtype=scales[i].dtype, device=scales[i].device)
                    c = self.joints[min(i, j)]
                    w = c.up(eye) if i < j else c.down(eye)
                    blocks[slot] = scales[i][:, None] * w * scales[j]
            rows.append(torch.cat([b.to(scales[i]) for b in blocks], dim=1))
        matrix = torch.cat(rows).detach()
        if not bool(torch.isfinite(matrix).all()):
            return math.nan
        if tail.is_cone():
            return tails.norm(tail)
        return float(torch.linalg.matrix_norm(matrix, ord=2))

    def check(self, x: Tensor, what: str = "the data") -> None:
        """Raise a `DataError` unless `x` are valid rows of the visible layer."""
        unit.check(self.layers[0], x, what)

    def spec(self) -> dict[str, object]:
        """Return plain values from which `from_spec` rebuilds the machine, all but its parameters.

        ``fixed`` names the parameters that are not learned; ``dtype`` is there unless it is float32.
        """
        dtype = next(self.parameters()).dtype
        found: dict[str, object] = {
            "units": [families.spec(u) for u in self.layers],
            "connections": [type(c).__name__ for c in self.joints],
            "fixed": [k for k, p in self.named_parameters() if not p.requires_grad],
        }
        if dtype != torch.float32:
            found["dtype"] = str(dtype).removeprefix("torch.")
        return found
