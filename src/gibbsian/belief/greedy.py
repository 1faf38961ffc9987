"""Greedy stacks: machines trained one on top of the other, and kept in a run's folder ``layers``."""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from gibbsian import belief, models, runs, trained
from gibbsian.belief.beside import beside
from gibbsian.data import Dataset
from gibbsian.errors import TrainingError
from gibbsian.estimators import Estimator
from gibbsian.machine import BoltzmannMachine
from gibbsian.runs import Run
from gibbsian.stacking import Lift, Up, through
from gibbsian.trained import Trained
from gibbsian.units import Bernoulli, Units

Tell = Callable[[str], None]


def machines(
    visible: Units, hidden: Sequence[int | Units], classes: Sequence[int] = ()
) -> list[BoltzmannMachine]:
    """Build the RBMs of a greedy stack, the last with the label block beside its visible layer.

    Parameters
    ----------
    visible : Units
    hidden : sequence of int or Units
        Hidden layers from below; whole numbers mean that many Bernoulli units.
    classes : sequence of int
        The labels; none for a stack without.

    Raises
    ------
    TrainingError
        If there is no hidden layer.
    """
    if not hidden:
        raise TrainingError(
            "A stack needs at least one hidden layer; give its sizes, such as [500]."
        )
    layers = [visible, *(h if isinstance(h, Units) else Bernoulli(h) for h in hidden)]
    made = [models.rbm(copy.deepcopy(a), copy.deepcopy(b)) for a, b in pairwise(layers)]
    if classes:
        pen = belief.with_labels(copy.deepcopy(layers[-2]), len(classes))
        made[-1] = models.rbm(pen, copy.deepcopy(layers[-1]))
    return made


def greedy(
    stack: Sequence[BoltzmannMachine],
    data: Dataset,
    method: Estimator | None = None,
    *,
    classes: Sequence[int] = (),
    run: Run | None = None,
    progress: bool = True,
    tell: Tell | None = None,
    **options: Any,
) -> list[Trained]:
    """Train machines one on top of the other (Hinton, Osindero & Teh 2006, §4).

    Each is trained on states of the machines below, which are drawn batch by batch: see
    `gibbsian.stacking`. No layer's activations of all rows are ever held.

    Parameters
    ----------
    stack : sequence of BoltzmannMachine
        RBMs of any units; trained in place.
    data : Dataset
    method : Estimator, optional
        As for `gibbsian.train`; it has no memory, so all machines share it.
    classes : sequence of int
        Labels that are joined to the last machine's rows.
    run : Run, optional
        Machines become runs in its folder ``layers``; those that are there go on where they stand.
    progress : bool
        Show a live bar.
    tell : callable, optional
        Called with a sentence before each machine.
    **options
        Settings of training, the same for all.

    Returns
    -------
    list of Trained
        One a machine.
    """
    lifts: list[Lift] = []
    out: list[Trained] = []
    for i, machine in enumerate(stack, start=1):
        seen = through(data, *lifts)
        if classes and i == len(stack):
            seen = beside(seen, classes)
        sizes = " and ".join(map(str, machine.sizes))
        if tell is not None:
            tell(f"Layer {i} of {len(stack)}: a machine of {sizes} units.")
        out.append(_layer(machine, seen, method, run, f"layers/{i}", progress, options))
        lifts.append(Up(out[-1].machine))
    return out


def _layer(
    machine: BoltzmannMachine, seen: Dataset, method: Estimator | None, run: Run | None, name: str,
    progress: bool, options: Mapping[str, Any],
) -> Trained:  # fmt: skip
    """Train one machine, go on with its training, or read it if it is done."""
    if run is None:
        return trained.train(machine, seen, method, progress=progress, **options)
    path = run.path / name
    if name in done(run):
        return trained.load(path)
    if runs.is_run(path):
        found = trained.resume(path, seen, progress)
    else:
        found = trained.train(machine, seen, method, out=path, progress=progress, **options)
    run.log({"stage": name, "step": found.step, "time": time.time()})
    return found


def done(run: Run) -> set[str]:
    """Return the names of the stages that came to their end."""
    return {str(record.get("stage")) for record in run.metrics()}
