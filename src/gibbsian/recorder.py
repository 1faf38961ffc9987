"""Keeps the trajectory of a training: machines of equal acceptance, saved while it runs."""

import copy
import warnings
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from gibbsian import checkpoint
from gibbsian.arguments import number, whole
from gibbsian.callbacks import Callback
from gibbsian.errors import GibbsianWarning, RunError, TrainingError
from gibbsian.machine import BoltzmannMachine
from gibbsian.path import BaseRatePath, reference
from gibbsian.samplers.gibbs import draw
from gibbsian.samplers.ladder import ACCEPTANCE, spread_of

if TYPE_CHECKING:
    from gibbsian.training import Trainer

# Updates from one look to the next: a share of the updates done, within bounds. A look costs as much as two or
# three updates, so that these keep it near one part in a hundred.
_SHARE, _SOONEST, _LATEST = 0.2, 5, 250
# Gibbs steps that move the samples of the last machine at each look.
_MOVES = 3
_LONGEST = 10**9


class TrajectoryRecorder(Callback):
    """Saves machines into the run's folder ``trajectory/``, the reference machine (W = 0) first.

    With chains x of the machine θ that is trained and chains y of the machine c that was saved last, an exchange
    would be accepted with probability min(1, e^Δ), Δ = [F_θ(x) − F_c(x)] − [F_θ(y) − F_c(y)] (Béreux et al.
    2025). Where its mean has fallen to `acceptance`, θ is saved too. x are the persistent chains, or, for a method
    that keeps none, chains of the recorder's own; y are those of the time when c was saved, moved by Gibbs steps
    under c. Training is not touched: the recorder has a random generator of its own.

    Parameters
    ----------
    limit : int
        Most machines on disk. Beyond it the one goes whose neighbours are nearest to each other; nearness is
        thermodynamic length, the sum of the s with acceptance erfc(s/2) (Kofke 2002; Crooks 2007).
    acceptance : float
        Between 0 and 1.

    Raises
    ------
    TrainingError
        If a setting is impossible; and, at the start, if the training has no run folder.

    Warns
    -----
    GibbsianWarning
        If a machine cannot be written, once: training goes on, and the next look tries again.
    """

    def __init__(self, limit: int = 50, acceptance: float = ACCEPTANCE) -> None:
        self.limit = whole(limit, "The limit of a trajectory", 3, TrainingError)
        if not 0 < number(acceptance, "The acceptance of a trajectory", TrainingError) < 1:
            raise TrainingError(
                f"The acceptance of a trajectory lies between 0 and 1, not {acceptance!r}."
            )
        self.acceptance = float(acceptance)
        # The update numbers on disk, each with its thermodynamic length from the reference.
        self.saved: dict[int, float] = {}
        self._next, self._warned = 0, False
        self._frozen: BoltzmannMachine | None = None
        self._own: list[Tensor] | None = None
        self._loaded: dict[str, Any] | None = None

    @torch.no_grad()
    def on_start(self, trainer: "Trainer") -> None:
        """Save the reference machine, or take up where a checkpoint left off."""
        if trainer.run is None:
            raise TrainingError("A trajectory is kept in the run's folder; give one as out=….")
        self._generator = Generator(trainer.device).manual_seed(trainer.settings.seed + 2)
        if self._loaded is not None:
            self._resume(trainer, self._loaded)
            return
        self._frozen = reference(trainer.machine, trainer.statistics)
        chains = 100 if trainer.chains is None else len(trainer.chains.layers[0])
        path = BaseRatePath(self._frozen, self._frozen)
        self._old = list(path.draw(chains, self._generator))
        self._own = None if trainer.chains is not None else list(self._old)
        if self._write(trainer, self._frozen, 0, 0.0):
            self.saved[0] = 0.0

    def _resume(self, trainer: "Trainer", state: dict[str, Any]) -> None:
        def there(layers: list[Tensor] | None) -> list[Tensor] | None:
            return None if layers is None else [t.to(trainer.device).clone() for t in layers]

        self._frozen = copy.deepcopy(trainer.machine)
        self._frozen.load_state_dict(state["frozen"])
        self._old, self._own = there(state["old"]) or [], there(state["own"])
        self._generator.set_state(state["generator"])
        self._next = state["next"]
        assert trainer.run is not None
        kept = set(checkpoint.steps(trainer.run.trajectory_folder))
        named = zip(state["updates"], state["lengths"], strict=True)
        # What was thinned out after the checkpoint is gone.
        self.saved = {u: length for u, length in named if u in kept}

    @torch.no_grad()
    def on_update(self, trainer: "Trainer") -> None:
        """Look, now and then, and save the machine where it has moved far enough."""
        if trainer.step < self._next:
            return
        self._next = trainer.step + min(_LATEST, max(_SOONEST, int(_SHARE * trainer.step)))
        found = self._acceptance(trainer)
        if not found <= self.acceptance:
            return
        length = max(self.saved.values(), default=0.0) + spread_of(max(found, 1e-6))
        if not self._write(trainer, trainer.machine, trainer.step, length):
            return
        self.saved[trainer.step] = length
        self._thin(trainer)
        assert self._frozen is not None
        self._frozen.load_state_dict(trainer.machine.state_dict())
        self._old = [s.clone() for s in self._chains(trainer)]

    def _chains(self, trainer: "Trainer") -> list[Tensor]:
        """Return states of the machine: the persistent chains in its dtype, or the recorder's own."""
        if self._own is not None:
            return self._own
        assert trainer.chains is not None
        like = next(trainer.machine.parameters())
        return [s.to(like) for s in trainer.chains.layers]

    def _acceptance(self, trainer: "Trainer") -> float:
        """Estimate the mean acceptance of an exchange with the machine that was saved last."""
        machine, frozen = trainer.machine, self._frozen
        assert frozen is not None
        for walker, layers in ((frozen, self._old), (machine, self._own)):
            for _ in range(_MOVES if layers is not None else 0):
                for parity in (1, 0):
                    draw(walker, layers or [], parity, self._generator)
        x, y = self._chains(trainer), self._old
        a, b = (machine.marginal_energy(s) - frozen.marginal_energy(s) for s in (x, y))
        # Each with each: chains of the two machines know nothing of each other.
        return float((a[:, None] - b).clamp(max=0).exp().mean())

    def _write(
        self, trainer: "Trainer", machine: BoltzmannMachine, update: int, length: float
    ) -> bool:
        """Save a machine; False, with a warning, where it cannot be written."""
        assert trainer.run is not None
        tree = {"machine": dict(machine.state_dict()), "length": length}
        try:
            checkpoint.write(trainer.run.trajectory_folder, update, tree, keep_last=_LONGEST)
        except RunError as error:
            if not self._warned:
                warnings.warn(
                    f"The trajectory lacks its machine of update {update}, and training goes on: {error}",
                    GibbsianWarning,
                    stacklevel=2,
                )
            self._warned = True
            return False
        return True

    def _thin(self, trainer: "Trainer") -> None:
        """Remove machines beyond the limit, never the first or the last."""
        assert trainer.run is not None
        while len(self.saved) > self.limit:
            updates = sorted(self.saved)
            pairs = list(pairwise(updates[:-1])), updates[2:]
            gaps = [
                (self.saved[after] - self.saved[before], u)
                for (before, u), after in zip(*pairs, strict=True)
            ]
            gone = min(gaps)[1]
            checkpoint.drop(trainer.run.trajectory_folder, gone)
            del self.saved[gone]

    def state_dict(self) -> dict[str, Any]:
        """Return the last machine and its chains, what is on disk, and the generator."""
        if self._frozen is None:
            return {}
        return {
            "frozen": dict(self._frozen.state_dict()), "old": list(self._old),
            "own": None if self._own is None else list(self._own),
            "generator": self._generator.get_state(), "next": self._next,
            "updates": list(self.saved), "lengths": list(self.saved.values()),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep what was saved until training starts."""
        self._loaded = state or None
