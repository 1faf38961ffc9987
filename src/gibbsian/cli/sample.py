"""gibbsian sample: chains from a trained machine."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gibbsian.cli import options as opt
from gibbsian.errors import GibbsianError

if TYPE_CHECKING:
    from torch import Tensor

    from gibbsian.samplers import Samples
    from gibbsian.trained import Trained

NAME = "sample"
EXAMPLES = """Examples:

gibbsian sample runs/digits -n 64 --steps 10000 --out samples.png

gibbsian sample runs/digits --start test --steps 1000 --out walk.gif

gibbsian sample runs/digits -n 1000 --checkpoint 2000 --out samples.npz"""

_STARTS = ("noise", "reference", "data", "test")
_FRAMES = 60
_ROWS = 10_000


def command(
    path: opt.RunPath,
    n: Annotated[int, typer.Option("-n", help="Number of chains, one sample each.", min=1)] = 64,
    steps: Annotated[int, typer.Option(help="Gibbs steps.", min=0)] = 1000,
    start: Annotated[str, typer.Option(help="noise, reference, data or test.")] = "noise",
    means: Annotated[
        bool, typer.Option("--means", help="Draw conditional means in pictures, not samples.")
    ] = False,
    checkpoint: opt.CheckpointName = "latest",
    seed: opt.Seed = 0,
    device: opt.Device = "cpu",
    precision: opt.Precision = "fp32",
    out: Annotated[Path, typer.Option(help="A .npz, .png or .gif file.")] = Path("samples.npz"),
) -> None:
    """Sample from a run's machine by block Gibbs chains.

    Chains from noise know nothing of the data; reference starts at independent units fitted to the
    data, data and test at training and test rows. An .npz file holds samples, their conditional
    means, and samples in the data's own columns as "original".
    """
    from gibbsian import samplers
    from gibbsian.trained import load

    if start not in _STARTS:
        raise GibbsianError(f"--start takes {', '.join(_STARTS)}, not {start!r}.")
    opt.output_file(out, ".npz", ".png", ".gif")
    kind = out.suffix.lower()
    trained = load(path, checkpoint, device)
    record = _frames(steps) if kind == ".gif" else []
    opt.check_memory(trained.machine, n, "-n", len(record))
    if kind != ".npz" and trained.data.image_shape is None:
        raise GibbsianError("The data are no images, so there is no picture; write a .npz file.")
    found = samplers.sample(
        trained.machine, n, steps, start="data" if start == "test" else start, generator=seed,
        data=_rows(trained, start, seed), record=record, precision=precision,
    )  # fmt: skip
    if kind == ".npz":
        _save(trained, found, out)
    else:
        _draw(trained, found, out, means)
    typer.echo(f"Wrote {n} samples after {steps} steps from {start} to {out}.")


def _frames(steps: int) -> list[int]:
    """Choose the steps that a film shows."""
    count = min(_FRAMES, steps + 1)
    return sorted({round(i * steps / max(count - 1, 1)) for i in range(count)})


def _rows(trained: "Trained", start: str, seed: int) -> "Tensor | None":
    if start == "noise":
        return None
    part = opt.rows_of(trained.data, "test" if start == "test" else "train", "--start")
    return part.tensor(limit=_ROWS, generator=seed).to(next(trained.machine.parameters()))


def _save(trained: "Trained", found: "Samples", out: Path) -> None:
    import numpy as np

    from gibbsian import checkpoint

    visible, buffer = found.samples.cpu(), io.BytesIO()
    np.savez(
        buffer, samples=visible.numpy(), means=found.means.cpu().numpy(),
        original=trained.transform.inverse(visible).numpy(),
    )  # fmt: skip
    checkpoint.publish({out: buffer.getvalue()})


def _draw(trained: "Trained", found: "Samples", out: Path, means: bool) -> None:
    import numpy as np

    from gibbsian import plots

    data = trained.data
    if found.trace is None:
        shown = found.means if means else found.samples
        pictures = data.to_images(shown)
        plots.save_images(pictures.reshape(len(shown), -1), pictures.shape[1:], out)
        return
    frames = np.stack([data.to_images(frame) for frame in found.trace])
    plots.save_gif(frames.reshape(*frames.shape[:2], -1), frames.shape[2:], out, 10)
