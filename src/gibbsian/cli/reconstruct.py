"""gibbsian reconstruct: denoising and inpainting."""

from pathlib import Path
from typing import Annotated

import typer
from torch import Generator

from gibbsian import repair
from gibbsian.cli import options as opt
from gibbsian.errors import GibbsianError

NAME = "reconstruct"
EXAMPLES = """Examples:

gibbsian reconstruct runs/digits --flip 0.15

gibbsian reconstruct runs/digits --hide-rows 3:5 --out inpainted.png"""

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
    out: Annotated[Path | None, typer.Option(help="PNG to write [in the run].")] = None,
) -> None:
    """Damage test rows, repair them, and give the error before and after."""
    if (flip is None) == (hide_rows is None and hide_cols is None):
        raise GibbsianError("Give either --flip, or --hide-rows and/or --hide-cols.")
    if out is not None and out.suffix.lower() != ".png":
        raise GibbsianError(f"The picture is written as .png, not as {out.name!r}.")
    trained = opt.open_run(path, checkpoint, device)
    data, machine = trained.data, trained.machine
    like = next(machine.parameters())
    x = data.split(split).tensor(limit=rows, generator=seed).to(like)
    generator = Generator(device).manual_seed(seed)
    if flip is not None:
        found = repair.denoise(machine, x, flip, generator, sweeps)
        name = "denoising.png"
    else:
        hidden = repair.hidden_pixels(
            data.image_shape, opt.span(hide_rows, "--hide-rows"), opt.span(hide_cols, "--hide-cols")
        )
        found = repair.inpaint(machine, x, hidden.to(x.device), generator, steps)
        name = "inpainting.png"
    typer.echo(
        f"rows {len(x)} ({split})  mean squared error before {found.before:.4f}  after {found.after:.4f}"
    )
    if data.image_shape is None:
        return
    target = out or path / name
    target.parent.mkdir(parents=True, exist_ok=True)
    draw(trained.data, found, target)
    typer.echo(f"Wrote {target}.")


def draw(data: object, found: repair.Repair, target: Path) -> None:
    """Draw originals, damaged and repaired rows as a PNG."""
    from gibbsian import plots
    from gibbsian.data import Dataset

    assert isinstance(data, Dataset)
    parts = [data.to_images(t[:_SHOWN]) for t in (found.original, found.damaged, found.repaired)]
    flat = [p.reshape(len(p), -1) for p in parts]
    plots.save(plots.reconstructions(*flat, parts[0].shape[1:]), target)
