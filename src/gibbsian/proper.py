"""Keeps machines with unbounded units on both sides normalisable while they are trained.

Z is finite if u·B w < 1 in every direction that states can grow along: see `gibbsian.tails`. The directions
of largest values are followed from update to update, and where one comes near 1, the part of B along it is
taken back. Directions that are far from it are left alone: the largest is often the brightness of all pixels,
and to scale all couplings down for its sake would keep the machine from learning anything else.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gibbsian.machine import BoltzmannMachine
from gibbsian.tails import Tails

MARGIN = 0.98
_LIMIT = 0.99  # what cuts have not brought below this, all couplings are scaled down for
_FOLLOWED = 16  # directions
_FIRST_ROUNDS = 50
_MORE_ROUNDS = 2
_PASSES = 4  # over the directions
# Beyond this, directions that are not followed may be too large as well: they are looked for at once.
_FAR = 2.0
_MOST_PASSES = 20


class Keeper:
    """Takes back couplings so that u·B w is about `MARGIN` at the most after every update.

    Attributes
    ----------
    needed : bool
        Whether the machine has unbounded units on both sides.
    """

    def __init__(self, machine: BoltzmannMachine) -> None:
        self.machine = machine
        self._followed: Tensor | None = None
        self._calls = 0
        self.needed = Tails(machine).meet()

    def keep(self) -> bool:
        """Take back what is too large, and say whether there was anything."""
        if not self.needed:
            return False
        with torch.no_grad():
            tails = Tails(self.machine)
            u, w, values = tails.ascend(*self._directions(tails))
            largest = float(values.max())  # a GPU's host waits for each
            cut, far = largest > MARGIN, largest > _FAR
            passes = _MOST_PASSES if far else _PASSES
            for _ in range(passes if cut else 0):
                _cut(tails, u, w, values)
                more = (tails.starts(_FOLLOWED, self._calls), _FIRST_ROUNDS) if far else (u, 1)
                u, w, values = tails.ascend(*more)
                largest = float(values.max())
                if not largest > _LIMIT:
                    break
            if largest > _LIMIT:
                for c in self.machine.joints:
                    c.weight.mul_(MARGIN / largest)
            # The best stays first; the others begin anew one after another, each after as many updates.
            best = int(values.argmax())
            u[[0, best]] = u[[best, 0]]
            self._followed = u
        return cut

    def _directions(self, tails: Tails) -> tuple[Tensor, int]:
        """Return what is followed, and for how many turns to follow it."""
        self._calls += 1
        if self._followed is None:
            return tails.starts(_FOLLOWED, seed=0), _FIRST_ROUNDS
        followed = self._followed.clone()
        turn = self._calls % _FOLLOWED
        if turn:
            followed[turn] = tails.starts(1, seed=self._calls)[0]
        lost = followed.norm(dim=1) < 0.5  # couplings of zero leave no direction to go on from
        if bool(lost.any()):
            followed[lost] = tails.starts(_FOLLOWED, seed=0)[lost]
        return followed, _MORE_ROUNDS

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"followed": self._followed, "calls": self._calls}

    def load_state_dict(self, state: Any) -> None:
        """Take back what `state_dict` returned; runs of earlier versions kept another vector."""
        if isinstance(state, dict):
            like = next(self.machine.parameters())
            kept = state["followed"]
            self._followed = None if kept is None else kept.to(like)
            self._calls = int(state["calls"])


def _cut(tails: Tails, u: Tensor, w: Tensor, values: Tensor) -> None:
    """Lower u·B w to `MARGIN` where it is larger, by changes of B along u wᵀ, the largest value first.

    A change of B by −t u_l w_lᵀ lowers the value k by t (u_k·u_l)(w_k·w_l), so all changes are known before
    B is touched. Deep machines have couplings between neighbours only: a part of u wᵀ, and of the products.
    """
    parts = tails.parts(u, 0) | tails.parts(w, 1)
    pairs = [(parts[i], parts[i + 1]) for i in range(len(parts) - 1)]
    overlap = (
        torch.stack([(a @ a.T) * (b @ b.T) for a, b in pairs]).sum(dim=0).double().cpu().numpy()
    )
    left, taken = values.double().cpu().numpy(), np.zeros(len(values))
    for _ in range(2 * len(left)):
        k = int(left.argmax())
        if left[k] <= MARGIN or overlap[k, k] <= 0:
            break
        t = (left[k] - MARGIN) / overlap[k, k]
        taken[k] += t
        left = left - t * overlap[:, k]
    amounts = torch.from_numpy(taken).to(u)[:, None]
    for i, (a, b) in enumerate(pairs):
        low, high = (_over(x, s) for x, s in zip((a, b), tails.scales[i:], strict=False))
        tails.machine.joints[i].weight.addmm_((low * amounts).T, high, alpha=-1)


def _over(x: Tensor, scale: Tensor) -> Tensor:
    """Return x / scale, and 0 for bounded units, whose scale is 0."""
    return torch.where(scale > 0, x / scale.clamp(min=torch.finfo(scale.dtype).tiny), 0.0)
