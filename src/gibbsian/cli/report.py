"""gibbsian report: one HTML page for a run."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from gibbsian.cli import options as opt
from gibbsian.cli.evaluate import Chains, MixingSteps, Rows, Temperatures, progress_bar, tell
from gibbsian.report import report

NAME = "report"
EXAMPLES = """Example:

gibbsian report runs/digits"""


def command(
    path: opt.RunPath,
    chains: Chains = 100,
    temperatures: Temperatures = 10_000,
    mixing_steps: MixingSteps = 10_000,
    rows: Rows = 10_000,
    checkpoint: opt.CheckpointName = "latest",
    seed: opt.Seed = 0,
    device: opt.Device = "cpu",
    out: Annotated[Path | None, typer.Option(help="Folder [the run's own].")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Evaluate a run, draw its pictures, and write report.html."""
    trained = opt.open_run(path, checkpoint, device)
    with progress_bar(not quiet and sys.stderr.isatty()) as progress:
        made = report(
            trained, out, chains=chains, temperatures=temperatures, mixing_steps=mixing_steps,
            rows=rows, seed=seed, progress=progress,
        )  # fmt: skip
    tell(made.verdict)
    typer.echo(f"\nWrote {made.page}")
