"""`gibbsian.evaluate` and `gibbsian.certify`: for a machine or a run, on a data set or rows."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from gibbsian import checkpoint, estimators, trajectory
from gibbsian.data import Dataset
from gibbsian.errors import GibbsianError
from gibbsian.estimators.online import OnlineLogZ
from gibbsian.evaluators import Certificate, Evaluation
from gibbsian.evaluators import certify as certify_rows
from gibbsian.evaluators import evaluate as evaluate_rows
from gibbsian.evaluators.free_energy import free_energies
from gibbsian.evaluators.moments import compare_moments
from gibbsian.machine import BoltzmannMachine
from gibbsian.report_page import Verdict
from gibbsian.trained import Trained
from gibbsian.trajectory import Trajectory
from gibbsian.units import base as unit
from gibbsian.verdict import judge

# Whether a method keeps its chains from update to update, by its name in a run's configuration.
_PERSISTENT = {"cd": False, "pcd": True, "fpcd": True, "jarzynski": True, "ptt": True}


def rows_of(data: Dataset, limit: int | None = None, seed: int = 0) -> dict[str, Tensor]:
    """Return the rows of each split by name; random transforms draw once, from `seed`."""
    parts = {k: getattr(data, k) for k in ("train", "validation", "test")}
    return {
        k: p.tensor(limit=limit, generator=seed)
        for k, p in parts.items()
        if p is not None and len(p)
    }


def evaluate(
    subject: Trained | BoltzmannMachine,
    data: Dataset | Mapping[str, Tensor] | Tensor | None = None,
    *,
    rows: int | None = 10_000,
    seed: int = 0,
    **options: Any,
) -> Evaluation:
    """Evaluate a machine: likelihood between two bounds, chain checks, and cheaper figures.

    Parameters
    ----------
    subject : BoltzmannMachine or Trained
        A run evaluates its averaged machine, on its own data unless others are given.
    data : Dataset, mapping of split to rows, or rows
        Rows alone count as "test".
    rows : int, optional
        Most rows of each split of a Dataset; copies are looked for among all training rows.
    seed : int
        Seed of the chains, and of the bits where a transform draws them.
    **options
        As for `gibbsian.evaluators.evaluate`: chains, temperatures, mixing_steps, ….

    Returns
    -------
    Evaluation

    Raises
    ------
    GibbsianError
        If there are no data, or they do not fit the machine.
    """
    machine, table, noise = _subject(subject, data, rows, seed)
    if data is None and isinstance(subject, Trained):
        options.setdefault("reference", subject.reference)
    if isinstance(subject, Trained):
        options.setdefault("trajectory", _trajectory(subject))
        options.setdefault("online", _online(subject))
    if noise is not None:
        options.setdefault("dequantisation", noise)
    more = {"training_rows": _training_rows(subject, data, rows, seed), "generator": seed}
    options = {**_training(subject), **more, **options}
    return evaluate_rows(machine, table, **options)


def certify(
    subject: Trained | BoltzmannMachine,
    data: Dataset | Mapping[str, Tensor] | Tensor | None = None,
    *,
    rows: int | None = 10_000,
    seed: int = 0,
    **options: Any,
) -> Certificate:
    """Certify that chains from noise reach equilibrium, and that their samples are like held-out rows.

    Parameters
    ----------
    subject, data, rows, seed
        As for `evaluate`.
    **options
        As for `gibbsian.evaluators.certify`: chains, steps, held_out_margin, sampler, ….

    Returns
    -------
    Certificate

    Raises
    ------
    GibbsianError
        If there are no data, or they do not fit the machine.
    """
    machine, table, _ = _subject(subject, data, rows, seed)
    more = {"training_rows": _training_rows(subject, data, rows, seed), "generator": seed}
    options = {**_training(subject), **more, **options}
    return certify_rows(machine, table, **options)


def _training(subject: Any) -> dict[str, Any]:
    """Return the steps of a run's chains in an update, and whether these persist, where that is known."""
    if not isinstance(subject, Trained):
        return {}
    method = subject.config.get("method", {})
    return {
        "training_steps": method.get("steps"), "persistent": _PERSISTENT.get(method.get("kind")),
    }  # fmt: skip


def _training_rows(subject: Any, data: Any, rows: int | None, seed: int) -> Iterable[Tensor] | None:
    """Return all training rows in chunks where only some of them are at hand."""
    data = subject.data if data is None else data
    if not isinstance(data, Dataset) or rows is None or len(data.train) <= rows:
        return None
    return data.train.chunks(generator=seed)


def _trajectory(trained: Trained) -> Trajectory | None:
    """Return the machines that a run passed on the way to its averaged one, where it kept them."""
    run = trained.run
    if run is None or not [s for s in checkpoint.steps(run.trajectory_folder) if s <= trained.step]:
        return None
    return trajectory.load(run, trained.step).to(trained.machine, trained.step)


def _online(trained: Trained) -> OnlineLogZ | None:
    """Return what the chains of a run's training know of log Z of its averaged machine."""
    try:
        method = estimators.from_spec(trained.config.get("method", {}))
    except GibbsianError:  # of an object that no file holds
        return None
    return method.online_log_z(trained.machine, trained.chains)


def _subject(
    subject: Any, data: Dataset | Mapping[str, Tensor] | Tensor | None, rows: int | None, seed: int
) -> tuple[BoltzmannMachine, Mapping[str, Tensor] | Tensor, str | None]:
    """Return the machine, the rows of its data, and the noise added to them, in words."""
    machine = subject.machine if isinstance(subject, Trained) else subject
    if not isinstance(machine, BoltzmannMachine):
        raise GibbsianError(
            f"What is evaluated is a machine or a run that gibbsian.load opened, not {subject!r:.60}."
        )
    if data is None:
        if not isinstance(subject, Trained):
            raise GibbsianError("A machine alone has no data to be evaluated on; give them too.")
        data = subject.data
    if not isinstance(data, Dataset):
        return machine, data, None
    noise = [s for s in data.transform.names if s.startswith("dequantise")]
    like = next(machine.parameters())
    table = {k: x.to(like) for k, x in rows_of(data, rows, seed).items()}
    return machine, table, noise[0] if noise else None


def assess(
    trained: Trained, *, rows: int | None = 10_000, seed: int = 0, **options: Any
) -> tuple[Evaluation, Verdict]:
    """Evaluate a run and put the result into words; options as for `evaluate`."""
    found = evaluate(trained, rows=rows, seed=seed, **options)
    data = trained.data
    validation = options.get("held_out") == "validation" or data.test is None
    held = data.validation if validation else data.test
    energies, moments = None, None
    if held is not None and len(held) >= 4:
        machine = trained.machine
        held_rows = held.tensor(limit=rows, generator=seed).to(next(machine.parameters()))
        if len(machine.layers) == 2:
            energies = free_energies(machine, held_rows)
        layers = found.traces["noise"].state.layers
        with torch.no_grad():
            means = unit.mean(machine.layers[0], machine.field(0, layers))
        if len(means) >= 4:
            widths = machine.layers[0].domain.widths
            moments = compare_moments(means, held_rows, widths, seed=seed)
    return found, judge(found, energies, trained.history, moments)
