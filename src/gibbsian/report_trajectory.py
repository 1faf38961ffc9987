"""The trajectory of a training as a part of the report: log Z on the way, and how well it is crossed."""

from pathlib import Path

import numpy as np

from gibbsian import plots
from gibbsian.evaluators import Partition
from gibbsian.report_page import Section


def trajectory_section(z: Partition, folder: Path) -> Section | None:
    """Draw log Z of the machines that training passed, where a ladder went along them."""
    found = z.trajectory
    if found is None:
        return None
    errors = np.full(len(found.log_zs), np.nan)
    errors[-1] = found.standard_error
    figures = {
        "trajectory_log_z": (
            plots.log_z_along(found.updates, found.log_zs, errors, label="updates", exact=z.exact),
            "log Z along the trajectory",
            "From the machine without couplings, whose log Z is known, to the averaged machine.",
        ),
        "trajectory_rungs": (
            plots.ladder(found.acceptance, found.round_trips, found.chains, found.steps),
            "swaps along the trajectory",
            "Each rung has to be crossed, or the machine learns nothing from its past.",
        ),
    }
    doubt = z.trajectory_doubt
    return Section(
        "The trajectory",
        f"Chains at {len(found.log_zs)} machines on the way of training trade places. "
        f"log Z is {found.log_z:.2f} ({found.low:.2f} to {found.high:.2f}) nats. "
        + ("Nothing speaks against it." if doubt is None else f"It is doubted: {doubt}"),
        [
            (plots.save(f, folder / f"{k}.png"), title, words)
            for k, (f, title, words) in figures.items()
        ],
    )
