"""gibbsian demo: from nothing to a report in about two minutes."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from gibbsian.cli import options as opt
from gibbsian.cli.evaluate import progress_bar, tell

NAME = "demo"
EXAMPLES = """Example:

gibbsian demo"""

_HIDDEN, _UPDATES = 100, 20_000
_OUT = Path("runs/demo")


def command(
    out: Annotated[
        Path, typer.Option(help="Folder of the run; only the default one is replaced.")
    ] = _OUT,
    updates: Annotated[int, typer.Option(help="Parameter updates.", min=1)] = _UPDATES,
    temperatures: Annotated[int, typer.Option(help="Temperatures of AIS.", min=1)] = 5_000,
    mixing_steps: Annotated[int, typer.Option(help="Steps from noise.", min=8)] = 10_000,
    quiet: opt.Quiet = False,
) -> None:
    """Train an RBM on real handwritten digits, sample it from noise, and report on it.

    The data are scikit-learn's 1,797 digits of 8×8 pixels, so nothing is downloaded.
    """
    import gibbsian as gb
    from gibbsian import recipes
    from gibbsian.report import report

    begin = time.perf_counter()
    typer.echo(f"Training an RBM with {_HIDDEN} hidden units on scikit-learn's digits …")
    data = recipes.load_data(recipes.find("rbm"), "digits")
    machine = recipes.build("rbm", data, _HIDDEN)
    trained = gb.train(
        machine, data, gb.PCD(steps=1, chains=100), updates=updates, seed=0, out=out,
        overwrite=out == _OUT, progress=not quiet and sys.stderr.isatty(),
    )  # fmt: skip
    typer.echo("Running chains from noise, and both likelihood bounds …")
    with progress_bar(quiet) as progress:
        made = report(
            trained, chains=100, temperatures=temperatures, mixing_steps=mixing_steps,
            progress=progress,
        )  # fmt: skip
    tell(made.verdict)
    typer.echo(f"\nDone in {time.perf_counter() - begin:.0f} s. Open {made.page.resolve()}")
