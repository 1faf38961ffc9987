"""A preconditioner: couplings step more slowly along directions in which states vary most.

In centred coordinates the Fisher information of couplings W between layers v and h is about
Cov(v) ⊗ Cov(h) (the factors of K-FAC, Martens & Grosse 2015; for Boltzmann machines Desjardins et al. 2013).
A few large eigenvalues of either factor bound the learning rate, and all else learns as slowly as they allow.
Their directions U, with variances λ, are slowed until they count as a variance of `limit` each:

    ΔW = P_v · ∂W · P_h,   P = 1 − U diag(1 − limit/λ)₊ Uᵀ.

P is positive definite, so no optimum moves, and the rest can learn at a rate that is larger by
λ₁(v) λ₁(h) / limit².
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gibbsian.machine import BoltzmannMachine
from gibbsian.moments import Moments, Rows

# Directions followed in each layer, and updates between two looks at the states.
RANK, EVERY = 64, 200
# Share of what is known that a look leaves standing, once ten or more were taken.
_KEPT = 0.9


class Whitening:
    """Follows the principal directions of each layer's states, and slows steps along them.

    Parameters
    ----------
    machine : BoltzmannMachine
    limit : float
        Variance above which a direction is slowed, in squares of the states' unit.

    Attributes
    ----------
    looks : int
        How often states were looked at.
    bases, variances : list of Tensor (n_l, k) and (k,)
        The principal directions of each layer, and the variances along them.
    """

    def __init__(self, machine: BoltzmannMachine, limit: float) -> None:
        self.limit, self.looks = limit, 0
        like = next(machine.parameters())
        self._names = [
            f"connections.{i}.weight" if c.weight.requires_grad and c.is_matrix else None
            for i, c in enumerate(machine.joints)
        ]
        self.bases = [like.new_zeros(n, 0) for n in machine.sizes]
        self.variances = [like.new_zeros(0) for _ in machine.sizes]
        self._slowed: list[tuple[Tensor, Tensor] | None] = [None for _ in machine.sizes]

    @torch.no_grad()
    def precondition(self, gradient: Moments, step: int) -> Moments:
        """Return the gradient, in centred coordinates, with P on either side of that of each coupling.

        States are looked at where it holds them as rows and `step` says so: often at first.
        """
        if step % EVERY == 0 or (step < EVERY and step & (step - 1) == 0):
            self._look(gradient)
        out = gradient.entries()
        for i, name in enumerate(self._names):
            if name is None or name not in out:
                continue
            rows = gradient.rows(name)
            if rows is None:
                out[name] = self._slow(i, self._slow(i + 1, gradient[name]).T).T
            else:
                low, high = self._slow(i, rows.a), self._slow(i + 1, rows.b)
                out[name] = Rows(rows.connection, low, high, rows.w)
        return Moments(out)

    def _slow(self, layer: int, x: Tensor) -> Tensor:
        """Return x P of a layer, for rows x."""
        pair = self._slowed[layer]
        return x if pair is None else torch.addmm(x, (x @ pair[0]) * pair[1], pair[0].T, alpha=-1)

    def _look(self, gradient: Moments) -> None:
        """Take the rows of both phases into the principal directions."""
        self.looks += 1
        seen: dict[int, Tensor] = {}
        for i, name in enumerate(self._names):
            rows = None if name is None else gradient.rows(name)
            if rows is not None:
                seen.setdefault(i, rows.a)
                seen[i + 1] = rows.b
        for layer, x in seen.items():
            self._merge(layer, x)
        self._choose()

    def _merge(self, layer: int, x: Tensor) -> None:
        """Join what is known, weighted by its age, with new rows, and keep the principal directions.

        Both together are a table of few rows, whose singular vectors come from its rows' products
        (incremental principal components with forgetting; Ross et al. 2008).
        """
        basis, variance = self.bases[layer], self.variances[layer]
        kept = min(_KEPT, 1 - 1 / self.looks)
        old = (kept * variance).sqrt()[:, None] * basis.T
        table = torch.cat([old, ((1 - kept) / len(x)) ** 0.5 * x])
        values, vectors = torch.linalg.eigh((table @ table.T).double())
        large = values > 1e-6 * values[-1].clamp(min=1e-30)
        values, vectors = values[large][-RANK:], vectors[:, large][:, -RANK:]
        found = table.T @ (vectors / values.sqrt()).to(x.dtype)
        # Numbers too small to matter would slow every later product down.
        self.bases[layer] = torch.where(found.abs() < 1e-12, 0, found)
        self.variances[layer] = values.to(x.dtype)

    def _choose(self) -> None:
        """Pick the directions with too large a variance, and how much each is slowed."""
        for i, (basis, variance) in enumerate(zip(self.bases, self.variances, strict=True)):
            wide = variance > self.limit
            slower = 1 - self.limit / variance[wide]
            self._slowed[i] = (basis[:, wide].contiguous(), slower) if bool(wide.any()) else None

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"looks": self.looks, "bases": self.bases, "variances": self.variances}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        like = self.bases[0]
        self.looks = int(state["looks"])
        self.bases = [b.to(like).clone() for b in state["bases"]]
        self.variances = [v.to(like).clone() for v in state["variances"]]
        self._choose()
