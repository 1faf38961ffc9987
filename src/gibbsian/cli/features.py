"""gibbsian features: what hidden units look for, as a picture, and their states, as numbers."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gibbsian.cli import options as opt
from gibbsian.errors import GibbsianError

if TYPE_CHECKING:
    from torch import Tensor

    from gibbsian.connections import Connection
    from gibbsian.data import Dataset, Split

NAME = "features"
EXAMPLES = """Examples:

gibbsian features runs/digits --out features.png

gibbsian features runs/deep --layer 2 --count 100 --out features.png

gibbsian features runs/digits --values hidden.npy --split test"""

_ROWS = 1024  # rows whose states are found together


def command(
    path: opt.RunPath,
    layer: Annotated[int, typer.Option(help="Hidden layer: 1 is the first, -1 the top one.")] = 1,
    count: Annotated[int, typer.Option(help="Most units shown, largest first.", min=1)] = 64,
    out: Annotated[
        Path | None, typer.Option(help="PNG to write.", show_default="a file in the run")
    ] = None,
    values: Annotated[
        Path | None, typer.Option(help="A .npy file for the units' mean states, a line a row.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Rows of --values: train, validation or test.")
    ] = "test",
    checkpoint: opt.CheckpointName = "latest",
    seed: opt.Seed = 0,
    device: opt.Device = "cpu",
) -> None:
    """Draw what the units of a hidden layer look for, and save their mean states given rows.

    A unit of the first layer is drawn by its couplings to the pixels; one of a deeper layer by the sum
    of the features below it, weighted by its couplings to them. --values takes every row of a split.
    """
    from gibbsian import plots
    from gibbsian.features import hidden_layer, projection

    if out is not None:
        opt.output_file(out, ".png")
    if values is not None:
        opt.output_file(values, ".npy", option="--values")
    joints, states, data = _opened(path, checkpoint, device)
    rows = None if values is None else opt.rows_of(data, split, "--split")
    number = hidden_layer(layer, len(joints))
    found = projection(joints, number).cpu()
    shape = data.image_shape
    fits = shape is not None and _pixels(shape) == found.shape[1]
    target = out or path / f"features-{number}.png"
    figure = plots.filters(found, shape if fits else None, most=count, layer=number)
    plots.save(figure, target)
    typer.echo(
        f"Wrote {min(count, len(found))} of the {len(found)} features of layer {number} to {target}."
    )
    if values is not None and rows is not None:
        size = _write_values(lambda x: states(x, number), rows, seed, values)
        typer.echo(f"Wrote the mean states of layer {number}, {size[0]} × {size[1]}, to {values}.")


def _opened(path: Path, checkpoint: str, device: str) -> tuple[list["Connection"], Any, "Dataset"]:
    """Return a run's connections from below, its function from rows and a layer to states, and its data."""
    from gibbsian.belief import runs as belief_runs
    from gibbsian.features import transform
    from gibbsian.trained import load

    if not belief_runs.is_belief(path):
        trained = load(path, checkpoint, device)
        machine = trained.machine
        return machine.joints, lambda x, layer: transform(machine, x, layer), trained.data
    if (checkpoint, device) != ("latest", "cpu"):
        raise GibbsianError(
            f"The run in {path} is a deep belief network, seen on the CPU in its newest state; leave "
            "--checkpoint and --device out."
        )
    found = belief_runs.load(path)
    return found.network.joints, found.network.transform, found.data


def _pixels(shape: tuple[int, ...]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


def _write_values(
    states_of: Callable[["Tensor"], "Tensor"], rows: "Split", seed: int, target: Path
) -> tuple[int, ...]:
    """Write the mean states given every row of a split, in the split's order."""
    import numpy as np
    import torch

    from gibbsian import checkpoint

    found = [states_of(x).cpu() for x in rows.chunks(_ROWS, generator=seed)]
    states, buffer = torch.cat(found).numpy(), io.BytesIO()
    if not np.isfinite(states).all():
        raise GibbsianError("Some mean states are not finite; take an earlier --checkpoint.")
    np.save(buffer, states)
    checkpoint.publish({target: buffer.getvalue()})
    return states.shape
