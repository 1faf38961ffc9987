"""gibbsian report: one HTML page for a run."""

from pathlib import Path
from typing import Annotated

import typer

from gibbsian.cli import options as opt
from gibbsian.cli.evaluate import (
    Chains,
    HeldOut,
    HeldOutMargin,
    Kernel,
    LadderSteps,
    MixingSteps,
    Rows,
    Temperatures,
    kernel,
    progress_bar,
    tell,
)

NAME = "report"
EXAMPLES = """Examples:

gibbsian report runs/digits

gibbsian report runs/digits --checkpoint 2000 --out reports/early"""


def command(
    path: opt.RunPath,
    chains: Chains = 100,
    temperatures: Temperatures = 10_000,
    mixing_steps: MixingSteps = None,
    ladder_steps: LadderSteps = None,
    sampler: Kernel = "gibbs",
    held_out_margin: HeldOutMargin = 0.1,
    held_out: HeldOut = None,
    rows: Rows = 10_000,
    checkpoint: opt.CheckpointName = "latest",
    seed: opt.Seed = 0,
    device: opt.Device = "cpu",
    out: Annotated[
        Path | None, typer.Option(help="Folder to write into.", show_default="the run's own")
    ] = None,
    quiet: opt.Quiet = False,
) -> None:
    """Evaluate a run, draw its pictures, and write report.html."""
    from gibbsian.report import report
    from gibbsian.trained import load

    trained = load(path, checkpoint, device)
    opt.check_memory(trained.machine, chains, "--chains")
    compared = kernel(trained, sampler, seed)
    opt.output_folder(out or path)
    with progress_bar(quiet) as progress:
        made = report(
            trained, out, chains=chains, temperatures=temperatures, mixing_steps=mixing_steps,
            ladder_steps=ladder_steps, sampler=compared,
            held_out_margin=held_out_margin, held_out=held_out, rows=rows, seed=seed, progress=progress,
        )  # fmt: skip
    tell(made.verdict)
    typer.echo(f"\nWrote {made.page}")
