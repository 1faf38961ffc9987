"""The Typer application: the list of commands."""

from typing import Annotated

import typer

from gibbsian.cli import (
    compare,
    demo,
    evaluate,
    features,
    finetune,
    info,
    inpaint_study,
    reconstruct,
    report,
    sample,
    study,
    train,
)

app = typer.Typer(
    name="gibbsian",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

for module in (
    train,
    sample,
    evaluate,
    reconstruct,
    features,
    finetune,
    inpaint_study,
    report,
    info,
    study,
    compare,
    demo,
):
    # Help keeps the line breaks of a second paragraph, which the docstring has for its own sake.
    paragraphs = (module.command.__doc__ or "").split("\n\n")
    text = "\n\n".join(" ".join(p.split()) for p in paragraphs)
    app.command(name=module.NAME, help=text, epilog=module.EXAMPLES)(module.command)


def _version(wanted: bool) -> bool:
    if wanted:
        from gibbsian import __version__

        typer.echo(f"gibbsian {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train Boltzmann machines, sample them from noise, and know what to believe."""
