"""gibbsian reconstruct: denoising and inpainting."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gibbsian.cli import options as opt
from gibbsian.errors import GibbsianError

if TYPE_CHECKING:
    from torch import Tensor

    from gibbsian.data import Dataset

NAME = "reconstruct"
EXAMPLES = """Examples:

gibbsian reconstruct runs/digits --flip 0.15

gibbsian reconstruct runs/digits --hide-rows 3:5 --out inpainted.png

gibbsian reconstruct runs/digits --hide-cols 4: --split validation"""

_SHOWN = 16


def command(
    path: opt.RunPath,
    flip: Annotated[float | None, typer.Option(help="Fraction of entries to damage.")] = None,
    hide_rows: Annotated[str | None, typer.Option(help="Rows to hide, such as 10:17.")] = None,
    hide_cols: Annotated[str | None, typer.Option(help="Columns to hide, such as 0:14.")] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    rows: Annotated[int, typer.Option(help="Rows to repair.", min=1)] = 500,
    steps: Annotated[int, typer.Option(help="Gibbs steps of inpainting.", min=1)] = 500,
    sweeps: Annotated[int, typer.Option(help="Mean-field sweeps of denoising.", min=1)] = 1,
    checkpoint: opt.CheckpointName = "latest",
    seed: opt.Seed = 0,
    device: opt.Device = "cpu",
    out: Annotated[
        Path | None, typer.Option(help="PNG to write.", show_default="a file in the run")
    ] = None,
) -> None:
    """Damage test rows, repair them, and give the error before and after.

    --flip turns or redraws entries and takes them back through the hidden units; --hide-rows and
    --hide-cols draw a part of each image anew, given the rest of it.
    """
    import torch
    from torch import Generator

    from gibbsian import repair
    from gibbsian.trained import load

    if (flip is None) == (hide_rows is None and hide_cols is None):
        raise GibbsianError("Give either --flip, or --hide-rows and/or --hide-cols.")
    if flip is not None and not 0 <= flip <= 1:
        raise GibbsianError(f"--flip takes a fraction from 0 to 1, not {flip}.")
    spans = opt.span(hide_rows, "--hide-rows"), opt.span(hide_cols, "--hide-cols")
    if out is not None:
        opt.output_file(out, ".png")
    trained = load(path, checkpoint, device)
    data, machine = trained.data, trained.machine
    part = opt.rows_of(data, split, "--split")
    x = part.tensor(limit=rows, generator=seed).to(next(machine.parameters()))
    generator = Generator(device).manual_seed(seed)
    clean = part.tensor(limit=rows, generator=seed, noisy=False).to(x)
    if flip is not None:
        found, name = repair.denoise(machine, x, flip, generator, sweeps), "denoising.png"
        repaired = found.repaired
    else:
        pixels = repair.hidden_pixels(data.image_shape, *spans)
        hidden = repair.blocks_of(machine, pixels).to(x.device)
        found, name = repair.inpaint(machine, x, hidden, generator, steps), "inpainting.png"
        repaired = torch.where(hidden, found.repaired, clean)
    typer.echo(f"{len(x)} {split} rows, mean squared error per column:")
    typer.echo(f"  before {found.before:.4f}   after {found.after:.4f}")
    if data.image_shape is None:
        return
    target = out or path / name
    _draw(data, (clean, found.damaged, repaired), target)
    typer.echo(f"Wrote {target}.")


def _draw(data: "Dataset", pictures: "tuple[Tensor, ...]", target: Path) -> None:
    """Draw originals, damaged and repaired rows as a PNG."""
    from gibbsian import plots

    original, damaged, repaired = (data.to_images(t[:_SHOWN]) for t in pictures)
    rows = (t.reshape(len(t), -1) for t in (original, damaged, repaired))
    plots.save(plots.reconstructions(*rows, image_shape=original.shape[1:]), target)
