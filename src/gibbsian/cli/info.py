"""gibbsian info: what a run is."""

import json
from typing import Annotated

import typer

from gibbsian import runs
from gibbsian.cli import options as opt

NAME = "info"
EXAMPLES = """Example:

gibbsian info runs/digits"""


def command(
    path: opt.RunPath,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show a run: its configuration, checkpoints and newest metrics."""
    run = runs.open_run(path)
    metrics = run.metrics()
    newest = metrics[-1] if metrics else {}
    if as_json:
        typer.echo(
            json.dumps({"config": run.config, "checkpoints": run.checkpoints, "metrics": newest})
        )
        return
    config = run.config
    layers = " - ".join(_layer(u) for u in config["machine"]["units"])
    typer.echo(f"machine      {layers}")
    typer.echo(f"data         {config['data']['spec'].get('source')}")
    typer.echo(f"method       {_pairs(config['method'])}")
    typer.echo(f"training     {_pairs(config['training'])}")
    typer.echo(f"checkpoints  {', '.join(map(str, run.checkpoints)) or 'none'}")
    for name, value in newest.items():
        typer.echo(f"  {name:22s} {_pairs(value) if isinstance(value, dict) else value}")


def _layer(spec: dict[str, object]) -> str:
    return f"{spec['kind']}({_pairs({k: v for k, v in spec.items() if k != 'kind'})})"


def _pairs(table: dict[str, object]) -> str:
    return ", ".join(
        f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in table.items()
    )
