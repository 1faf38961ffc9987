"""Trajectories: the machines that a training passed on its way, from the reference to the trained one."""

import copy
import os
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator

from gibbsian import checkpoint, models, runs
from gibbsian import units as families
from gibbsian.arguments import number
from gibbsian.errors import GibbsianError, RunError
from gibbsian.machine import BoltzmannMachine
from gibbsian.path import BaseRatePath
from gibbsian.units import base as unit

if TYPE_CHECKING:
    from gibbsian.trained import Trained


@dataclass(frozen=True, repr=False)
class Trajectory:
    """Machines of one architecture in the order of training; the first has no couplings.

    Attributes
    ----------
    machines : tuple of BoltzmannMachine
        The first is the reference machine (W = 0), with exact samples and an exact log Z.
    updates : tuple of float
        Where each stood: updates done. Those between two that were saved need not be whole.

    Raises
    ------
    GibbsianError
        If there is no machine, they differ in architecture, are not in order or not finite, or the first has
        couplings.
    """

    machines: tuple[BoltzmannMachine, ...]
    updates: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check that the machines make a trajectory."""
        object.__setattr__(self, "machines", tuple(self.machines))
        object.__setattr__(self, "updates", tuple(self.updates))
        if not self.machines or len(self.machines) != len(self.updates):
            raise GibbsianError(
                f"A trajectory is one machine or more with one update number each, not "
                f"{len(self.machines)} machines and {len(self.updates)} numbers."
            )
        for found in self.machines:
            if not isinstance(found, BoltzmannMachine):
                raise GibbsianError(
                    f"A trajectory holds machines, and {found!r:.60} is none; read a run's with "
                    "gb.trajectory.load('runs/digits')."
                )
        for u in self.updates:
            number(u, "The update of a trajectory's machine")
        if not all(a < b for a, b in pairwise(self.updates)):
            raise GibbsianError(
                "The machines of a trajectory stand in the order of training, with update numbers that "
                f"rise, and {self.updates!s:.60} do not."
            )
        for machine in self.machines[1:]:
            check_alike(machine, self.machines[0])
        for u, machine in zip(self.updates, self.machines, strict=True):
            if not all(bool(torch.isfinite(p).all()) for p in machine.parameters()):
                raise GibbsianError(
                    f"The machine of update {u:g} of the trajectory has parameters that are not finite; "
                    "leave it out."
                )
        if any(bool(c.weight.any()) for c in self.machines[0].joints):
            raise GibbsianError(
                "The first machine of a trajectory has couplings, so it cannot be sampled exactly; "
                "begin with gibbsian.path.reference."
            )

    def __repr__(self) -> str:
        return (
            f"Trajectory({len(self)} machines, updates {self.updates[0]:g} to {self.updates[-1]:g})"
        )

    def __len__(self) -> int:
        return len(self.machines)

    def log_z0(self) -> float:
        """Return the exact log Z of the first machine, in nats."""
        return BaseRatePath(self.machines[0], self.machines[0]).log_z0()

    def to(self, machine: BoltzmannMachine, update: float | None = None) -> "Trajectory":
        """Return the trajectory that ends at a machine, such as the average of the parameters.

        It is one more rung, at `update` or one after the last, unless the last is that machine already. The
        others come to its dtype and device.

        Raises
        ------
        GibbsianError
            If it is of another architecture.
        """
        check_alike(machine, self.machines[0])
        like, mine = next(machine.parameters()), next(self.machines[0].parameters())
        found = self.machines
        if (like.dtype, like.device) != (mine.dtype, mine.device):
            found = tuple(copy.deepcopy(m).to(like) for m in found)
        if same(machine, found[-1]):
            return Trajectory(found, self.updates)
        after = self.updates[-1] + 1
        last = after if update is None else max(update, after)
        return Trajectory((*found, machine), (*self.updates, last))

    def refined(
        self, acceptance: float = 0.3, chains: int = 100, generator: Generator | int | None = None
    ) -> "Trajectory":
        """Return machines of equal acceptance along the same way: see `gibbsian.samplers.refine`."""
        from gibbsian.samplers.refine import refine

        return refine(self, acceptance, chains, generator)


def check_alike(machine: BoltzmannMachine, first: BoltzmannMachine) -> None:
    """Raise a `GibbsianError` unless a machine has the architecture of a trajectory's first."""
    if _architecture(machine) != _architecture(first):
        raise GibbsianError(
            f"The trajectory has layers of {first.sizes} units and the machine of {machine.sizes}, or "
            "their units differ; use the trajectory of this machine's own training."
        )


def _architecture(machine: BoltzmannMachine) -> list[dict[str, object]]:
    return [families.spec(u) for u in machine.layers]


def same(a: BoltzmannMachine, b: BoltzmannMachine) -> bool:
    """Tell whether two machines of one architecture have the same parameters."""
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x.to(y), y) for x, y in pairs)


@torch.no_grad()
def between(a: BoltzmannMachine, b: BoltzmannMachine, t: float) -> BoltzmannMachine:
    """Return the machine at t in [0, 1] of the straight way from a to b, in natural parameters.

    Couplings, biases and precisions themselves (never their logarithms) are interpolated, so proper ends
    give a proper machine.
    """
    found = copy.deepcopy(b)
    low = dict(a.named_parameters())
    for k, p in found.named_parameters():
        one = low[k].to(p)
        p.copy_(
            torch.lerp(one.exp(), p.exp(), t).log() if unit.is_log(k) else torch.lerp(one, p, t)
        )
    return found


def load(
    run: "str | os.PathLike[str] | runs.Run | Trained", until: int | None = None
) -> Trajectory:
    """Read the trajectory that a training left in its run folder.

    Parameters
    ----------
    run : path, Run or Trained
    until : int, optional
        Leave out machines of later updates than this.

    Raises
    ------
    RunError
        If the run kept no trajectory, or a file of it is damaged.
    """
    found: Any = getattr(run, "run", run)
    if found is None:
        raise RunError(
            "This training kept no run folder; train with out=… and save_trajectory=True."
        )
    opened = found if isinstance(found, runs.Run) else runs.open_run(found)
    folder = opened.trajectory_folder
    numbers = [s for s in checkpoint.steps(folder) if until is None or s <= until]
    if not numbers:
        raise RunError(
            f"{opened.path} holds no trajectory; train with --save-trajectory (save_trajectory=True)."
        )
    return Trajectory(tuple(_read(opened, s) for s in numbers), tuple(numbers))


def _read(run: runs.Run, update: int) -> BoltzmannMachine:
    """Read one machine back."""
    found = checkpoint.read(run.trajectory_folder, update)
    machine = models.from_spec(run.config["machine"])
    try:
        machine.load_state_dict(found.tree["machine"])
    except (KeyError, TypeError, RuntimeError):
        raise RunError(
            f"{found.path} is no machine of the run in {run.path}; remove the folder "
            f"{run.trajectory_folder.name} or train again."
        ) from None
    return machine
