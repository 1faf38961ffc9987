"""gibbsian compare: several models on the same data, side by side."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gibbsian.cli import options as opt
from gibbsian.cli.evaluate import progress_bar
from gibbsian.errors import GibbsianError

if TYPE_CHECKING:
    from gibbsian.comparison import Comparison, Plan

NAME = "compare"
EXAMPLES = """Examples:

gibbsian compare --preset mnist-notebook --out runs/notebook

gibbsian compare --preset mnist-notebook --data digits --out runs/digits-notebook

gibbsian compare my-models.toml --scale 0.1 --out runs/try

gibbsian compare --resume --out runs/notebook"""


def command(
    config: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG", show_default=False, help="TOML file of a comparison."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="One that comes with gibbsian: mnist-notebook.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Other data: a named set or a file.", show_default=False)
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of the named sets.", show_default="GIBBSIAN_DATA, or a download"),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(help="Factor on updates, temperatures and steps; 0.05 for a quick try."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the comparison.", show_default="runs/NAME")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the comparison in --out.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the comparison in --out.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    quiet: opt.Quiet = False,
) -> None:
    """Train several models on the same data; set them side by side in a table and in pictures.

    Each model is trained into a run of its own below --out. Likelihood between both bounds,
    certificate, denoising error, time and memory make the table; data, reconstructions, fantasy
    particles, denoised rows and features make the pictures.
    """
    from gibbsian import comparison

    if resume:
        if (
            out is None
            or overwrite
            or [x for x in (config, preset, data, data_dir, scale) if x is not None]
        ):
            raise GibbsianError(
                "--resume goes on with a comparison exactly as it was made, so it takes --out alone."
            )
        plan = None
    else:
        plan = _plan(config, preset, data, None if data_dir is None else str(data_dir))
        plan = plan if scale is None else plan.scaled(scale)
    name = preset or (config.stem if config is not None else "comparison")
    bars = not (quiet or as_json) and sys.stderr.isatty()
    found = comparison.compare(
        plan, out or Path("runs") / name, resume=resume, overwrite=overwrite, bars=bars,
        tell=None if as_json else typer.echo, watch=lambda: progress_bar(not bars),
    )  # fmt: skip
    _tell(found, as_json)


def _plan(
    config: Path | None, preset: str | None, data: str | None, data_dir: str | None
) -> "Plan":
    """Return the plan of a file or of a preset, on its own data or on others."""
    from gibbsian import comparison

    if (config is None) == (preset is None):
        raise GibbsianError(
            "Name a comparison: a TOML file, or --preset with one of "
            f"{', '.join(comparison.presets())}; not both."
        )
    if config is not None:
        return comparison.read(config, data, data_dir)
    return comparison.preset(str(preset), data, data_dir)


def _tell(found: "Comparison", as_json: bool) -> None:
    """Print the table, models beside each other, or its rows as JSON."""
    if as_json:
        typer.echo(json.dumps(found.rows, allow_nan=False))
        return
    from rich.console import Console
    from rich.table import Table

    from gibbsian.comparison.table import lines, settings

    held = found.rows[0]["held_out"]
    head, *others = zip(*lines(found.rows), strict=True)
    table = Table(title=f"log-likelihoods in nats per {held} row")
    for i, name in enumerate(head):
        table.add_column("" if i == 0 else name, justify="left" if i == 0 else "right")
    for line in others:
        table.add_row(*line)
    Console(width=120).print(table)
    typer.echo(settings(found.plan))
    if any(row["likelihood"] and row["likelihood"]["is_bound"] for row in found.rows):
        typer.echo("≥: a variational lower bound, under several hidden layers.")
    typer.echo(f"Wrote {found.page} and the pictures and comparison.json beside it.")
