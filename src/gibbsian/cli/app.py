"""The Typer application: the list of commands."""

from typing import Annotated

import typer

from gibbsian import __version__
from gibbsian.cli import demo, evaluate, info, reconstruct, report, sample, study, train

app = typer.Typer(
    name="gibbsian",
    help="Train Boltzmann machines, sample them from noise, and know what to believe.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

for module in (train, sample, evaluate, reconstruct, report, info, study, demo):
    app.command(name=module.NAME, epilog=module.EXAMPLES)(module.command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gibbsian {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train Boltzmann machines, sample them from noise, and know what to believe."""
