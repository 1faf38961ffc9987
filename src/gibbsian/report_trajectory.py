"""The trajectory of a training as a part of the report: log Z on the way, and how well it is crossed."""

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Generator

from gibbsian import plots, trajectory
from gibbsian.checkpoint import steps
from gibbsian.evaluators import ladder_log_z
from gibbsian.report_page import Section

if TYPE_CHECKING:
    from gibbsian.trained import Trained

_CHAINS, _STEPS = 50, 100


def trajectory_section(trained: "Trained", folder: Path, generator: Generator) -> Section | None:
    """Draw log Z of the machines that training passed, where it kept them."""
    run = trained.run
    if run is None or not [s for s in steps(run.trajectory_folder) if s <= trained.step]:
        return None
    kept = trajectory.load(run, trained.step)
    way = kept.to(trained.machine, trained.step).refined(generator=generator)
    found = ladder_log_z(trained.machine, way, chains=_CHAINS, steps=_STEPS, generator=generator)
    figures = {
        "trajectory_log_z": (
            plots.log_z_along(found.updates, found.log_zs, label="updates"),
            "log Z along the trajectory",
            "From the machine without couplings, whose log Z is known, to the averaged machine.",
        ),
        "trajectory_rungs": (
            plots.ladder(found.acceptance, found.round_trips, found.chains, found.steps),
            "swaps along the trajectory",
            "Each rung has to be crossed, or the machine learns nothing from its past.",
        ),
    }
    doubt = found.doubt
    return Section(
        "The trajectory",
        f"Chains at {len(way)} machines that training passed ({len(kept)} kept on disk) trade places. "
        f"log Z is {found.log_z:.2f} ({found.low:.2f} to {found.high:.2f}) nats. "
        + ("Nothing speaks against it." if doubt is None else f"It is doubted: {doubt}"),
        [
            (plots.save(f, folder / f"{k}.png"), title, words)
            for k, (f, title, words) in figures.items()
        ],
    )
