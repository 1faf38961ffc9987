"""`gibbsian.evaluate`: evaluators and verdict for a machine or a run, on a data set or rows."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gibbsian.data import Dataset
from gibbsian.errors import GibbsianError
from gibbsian.evaluators import Evaluation
from gibbsian.evaluators import evaluate as evaluate_rows
from gibbsian.evaluators.free_energy import free_energies
from gibbsian.evaluators.moments import compare_moments
from gibbsian.machine import BoltzmannMachine
from gibbsian.report_page import Verdict
from gibbsian.trained import Trained
from gibbsian.units import base as unit
from gibbsian.verdict import judge


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
        Most rows of each split of a Dataset.
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
    machine = subject.machine if isinstance(subject, Trained) else subject
    if not isinstance(machine, BoltzmannMachine):
        raise GibbsianError(
            f"What is evaluated is a machine or a run that gibbsian.load opened, not {subject!r:.60}."
        )
    if data is None:
        if not isinstance(subject, Trained):
            raise GibbsianError("A machine alone has no data to be evaluated on; give them too.")
        data = subject.data
        options.setdefault("reference", subject.reference)
    if isinstance(data, Dataset):
        noise = [s for s in data.transform.names if s.startswith("dequantise")]
        options.setdefault("dequantisation", noise[0] if noise else None)
        like = next(machine.parameters())
        data = {k: x.to(like) for k, x in rows_of(data, rows, seed).items()}
    options.setdefault("generator", seed)
    return evaluate_rows(machine, data, **options)


def assess(
    trained: Trained, *, rows: int | None = 10_000, seed: int = 0, **options: Any
) -> tuple[Evaluation, Verdict]:
    """Evaluate a run and put the result into words; options as for `evaluate`."""
    found = evaluate(trained, rows=rows, seed=seed, **options)
    held = trained.data.test or trained.data.validation
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
