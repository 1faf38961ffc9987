"""gibbsian sample: chains from a trained machine."""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from gibbsian import samplers
from gibbsian.cli import options as opt
from gibbsian.errors import GibbsianError
from gibbsian.trained import Trained

NAME = "sample"
EXAMPLES = """Examples:

gibbsian sample runs/digits -n 64 --steps 10000 --out samples.png

gibbsian sample runs/digits --start test --steps 1000 --out walk.gif"""

_FRAMES = 60


def command(
    path: opt.RunPath,
    n: Annotated[int, typer.Option("-n", help="Number of chains, one sample each.", min=1)] = 64,
    steps: Annotated[int, typer.Option(help="Gibbs steps.", min=0)] = 1000,
    start: Annotated[str, typer.Option(help="noise, reference, data or test.")] = "noise",
    means: Annotated[bool, typer.Option(help="Draw conditional means in pictures.")] = False,
    checkpoint: opt.CheckpointName = "latest",
    seed: opt.Seed = 0,
    device: opt.Device = "cpu",
    out: Annotated[Path, typer.Option(help="A .npz, .png or .gif file.")] = Path("samples.npz"),
) -> None:
    """Sample from a run's machine by block Gibbs chains.

    Chains from `noise` know nothing of the data; `reference` starts at independent units fitted to
    the data, `data` and `test` at training and test rows.
    """
    kind = out.suffix.lower()
    if kind not in (".npz", ".png", ".gif"):
        raise GibbsianError(f"Samples are written as .npz, .png or .gif, not as {out.name!r}.")
    trained = opt.open_run(path, checkpoint, device)
    record = sorted({round(i) for i in np.linspace(0, steps, min(_FRAMES, steps + 1))})
    found = samplers.sample(
        trained.machine, n, steps,
        start=_begin(trained, start), generator=seed, data=_rows(trained, start),
        record=record if kind == ".gif" else (),
    )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    if kind == ".npz":
        visible = found.samples.cpu()
        np.savez(
            out, samples=visible.numpy(), means=found.means.cpu().numpy(),
            original=trained.data.transform.inverse(visible).numpy(),
        )  # fmt: skip
    else:
        _draw(trained, found, out, means)
    typer.echo(f"Wrote {n} samples after {steps} steps from {start} to {out}.")


def _begin(trained: Trained, start: str) -> "str | torch.Tensor":
    if start == "test":
        return "data"
    if start not in samplers.base.STARTS:
        raise GibbsianError(f"--start takes noise, reference, data or test, not {start!r}.")
    return start


def _rows(trained: Trained, start: str) -> torch.Tensor | None:
    if start == "noise":
        return None
    part = trained.data.split("test" if start == "test" else "train")
    like = next(trained.machine.parameters())
    return part.tensor(limit=10_000, generator=0).to(like)


def _draw(trained: Trained, found: samplers.Samples, out: Path, means: bool) -> None:
    from gibbsian import plots

    data = trained.data
    shape = data.image_shape
    if shape is None:
        raise GibbsianError("The data are no images, so there is no picture; write a .npz file.")
    shown = found.means if means else found.samples
    if out.suffix.lower() == ".png":
        pictures = data.to_images(shown)
        plots.save_images(pictures.reshape(len(shown), -1), pictures.shape[1:], out)
        return
    assert found.trace is not None
    frames = np.stack([data.to_images(frame) for frame in found.trace])
    flat = frames.reshape(*frames.shape[:2], -1)
    plots.save_gif(flat, frames.shape[2:], out, 10)
