"""gibbsian info: what a run is."""

import json
import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gibbsian.cli import options as opt

NAME = "info"
EXAMPLES = """Examples:

gibbsian info runs/digits

gibbsian info runs/digits --json"""


def command(
    path: opt.RunPath,
    checkpoint: opt.CheckpointName = "latest",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Show a run: its configuration, checkpoints, and newest metrics (or those of a checkpoint)."""
    from gibbsian import runs

    run = runs.open_run(path)
    metrics = run.metrics()
    if checkpoint != "latest":  # which need not be there, for a run that has only begun
        step = run.checkpoint(checkpoint).step
        metrics = [record for record in metrics if record.get("step", 0) <= step]
    newest = metrics[-1] if metrics else {}
    config = run.config
    if as_json:
        words = {"config": config, "checkpoints": run.checkpoints, "metrics": newest}
        typer.echo(json.dumps(words, default=str))
        return
    spec = config.get("data", {}).get("spec", {})
    lines = {
        "machine": " | ".join(_machine(m) for m in _machines(config)),
        "data": _pairs({k: v for k, v in spec.items() if k != "fingerprint"}),
        "method": _pairs(config.get("method", {})),
        "training": _pairs(config.get("training", {})),
        "made with": _pairs(config.get("versions", {})),
        "checkpoints": ", ".join(map(str, run.checkpoints)) or "none",
    }
    for name, text in lines.items():
        typer.echo(f"{name:12s} {text}")
    if newest:
        written = newest.get("time")
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(written)) if written else "unknown"
        typer.echo(f"metrics      record {len(metrics)}, of {when}")
    for name, value in newest.items():
        if name != "time":
            typer.echo(f"  {name:22s} {_text(value)}")


def _machines(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the description of a run's machine, or of those of a deep belief network's stack."""
    return config.get("network", {}).get("machines") or [config.get("machine", {})]


def _machine(spec: Mapping[str, Any]) -> str:
    return " - ".join(_layer(u) for u in spec.get("units", []))


def _layer(spec: Mapping[str, Any]) -> str:
    return f"{spec.get('kind')}({_pairs({k: v for k, v in spec.items() if k != 'kind'})})"


def _pairs(table: Mapping[str, Any]) -> str:
    return ", ".join(f"{k}={_text(v)}" for k, v in table.items() if v not in ({}, []))


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return _pairs(value)
    if isinstance(value, list):
        parts = [_layer(v) if isinstance(v, Mapping) and "kind" in v else _text(v) for v in value]
        return "[" + ", ".join(parts) + "]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
