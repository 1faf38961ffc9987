"""The ladder of tempering as a part of the report: its rungs, log Z along it, samples at its levels."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Generator, Tensor

from gibbsian import plots
from gibbsian.evaluators import Ladder, Partition
from gibbsian.machine import BoltzmannMachine
from gibbsian.path import BaseRatePath
from gibbsian.report_page import Section
from gibbsian.samplers import Tempering, run
from gibbsian.samplers.replica import levels_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 8  # samples of each level
_STEPS = 200

Pictures = Callable[[Tensor], tuple[np.ndarray, tuple[int, ...] | None]]


def ladder_section(
    machine: BoltzmannMachine,
    reference: BoltzmannMachine,
    z: Partition,
    pictures: Pictures,
    folder: Path,
    generator: Generator,
) -> Section | None:
    """Draw what tempering did, where it was run."""
    found = z.ladder
    if found is None:
        return None
    names = [f"β = {b:.2f}" for b in found.betas]
    figures = {
        "ladder": plots.ladder(found.acceptance, found.round_trips, found.chains, found.steps),
        "log_z": _log_z(BaseRatePath(reference, machine).log_z0(), found, z.exact),
        "along_ladder": _samples(machine, reference, found, names, pictures, generator),
    }
    words = {
        "ladder": "Each rung has to be crossed, or the top learns nothing from the bottom.",
        "log_z": "From the reference, whose log Z is known exactly, to the machine.",
        "along_ladder": "From exact samples of independent units, first, to samples of the machine, last.",
    }
    images = [
        (plots.save(f, folder / f"{k}.png"), k.replace("_", " "), words[k])
        for k, f in figures.items()
    ]
    doubt = z.ladder_doubt
    told = "Nothing speaks against it." if doubt is None else f"It is doubted: {doubt}"
    return Section(
        "The ladder",
        "Tempering: chains at many temperatures trade places, so the top crosses between modes, and each "
        f"rung gives a ratio of partition functions. {told}",
        images,
    )


def _log_z(first: float, found: Ladder, exact: float | None) -> "Figure":
    """Draw log Z at each level: exact at the first, with the error of the sum at the last."""
    values = first + np.concatenate([[0.0], found.rungs.cumsum(dim=0).numpy()])
    errors = np.full(len(values), np.nan)
    errors[-1] = found.standard_error
    return plots.log_z_along(np.array(found.betas), values, errors, exact=exact)


def _samples(
    machine: BoltzmannMachine,
    reference: BoltzmannMachine,
    found: Ladder,
    names: list[str],
    pictures: Pictures,
    generator: Generator,
) -> "Figure":
    """Run a few chains on the same levels, and draw them."""
    n = min(_SHOWN, found.chains)
    sampler = Tempering(reference, found.betas)
    with torch.no_grad():
        state = sampler.init(machine, found.samples[:n], generator)
        state, _ = run(sampler, machine, state, _STEPS, generator)
    visible = levels_of(state)[0]
    drawn, shape = pictures(visible)
    return plots.along_ladder(drawn.reshape(len(names), n, -1), names, shape)
