"""gibbsian sample: chains from a trained machine."""

import io
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gibbsian.cli import dbn
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

gibbsian sample runs/digits --sampler tempering --steps 500

gibbsian sample runs/digits --sampler trajectory --steps 500

gibbsian sample runs/fours --sampler gibbs-langevin --sampler-option size=0.05 --sampler-option moves=10

gibbsian sample runs/belief --class 7 --steps 1000 --out sevens.png

gibbsian sample runs/digits -n 1000 --checkpoint 2000 --out samples.npz"""

_SAMPLERS = (
    "gibbs", "tempering", "trajectory", "transitions", "annealed", "driven", "langevin",
    "gibbs-langevin", "rates",
)  # fmt: skip
_STARTS = ("noise", "reference", "data", "test")
_FRAMES = 60
_ROWS = 10_000
# Percent of the steps after which a driven chain is plain Gibbs.
_DRIVEN = 80


def command(
    path: opt.RunPath,
    n: Annotated[int, typer.Option("-n", help="Number of chains, one sample each.", min=1)] = 64,
    steps: Annotated[
        int, typer.Option(help="Steps of the sampler; temperatures, when annealed.", min=0)
    ] = 1000,
    sampler: Annotated[
        str,
        typer.Option(
            help="gibbs, tempering, trajectory (of a run trained with --save-trajectory), transitions, "
            "annealed, driven, langevin, gibbs-langevin or rates (rates-FPCD)."
        ),
    ] = "gibbs",
    sampler_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Its settings, such as size=0.05 of langevin; repeatable. " + opt.SAMPLER_OPTIONS,
        ),
    ] = None,
    levels: Annotated[
        int | None,
        typer.Option(
            help="Levels of tempering or transitions; as many as needed unless given.", min=2
        ),
    ] = None,
    start: Annotated[str, typer.Option(help="noise, reference, data or test.")] = "noise",
    label: Annotated[
        str | None,
        typer.Option(
            "--class", help="Of a deep belief run with labels: a class, or several with commas."
        ),
    ] = None,
    means: Annotated[
        bool, typer.Option("--means", help="Draw conditional means in pictures, not samples.")
    ] = False,
    noisy: Annotated[
        bool,
        typer.Option(
            "--noisy", help="Leave the noise in that the data's transform adds (dequantise)."
        ),
    ] = False,
    checkpoint: opt.CheckpointName = "latest",
    seed: opt.Seed = 0,
    device: opt.Device = "cpu",
    precision: opt.Precision = "fp32",
    out: Annotated[Path, typer.Option(help="A .npz, .png or .gif file.")] = Path("samples.npz"),
) -> None:
    """Sample from a run's machine by block Gibbs chains, tempering or annealing.

    Chains from noise know nothing of the data; reference starts at independent units fitted to the
    data, data and test at training and test rows. Tempering, transitions and annealing climb to the machine
    from independent units fitted to the training rows, trajectory through machines that training passed.
    Driven chains have random temperatures, which settle at 1 for the last fifth of the steps, or after as
    many as their option steps says. An .npz file holds samples, their conditional means, and samples in the
    data's own columns as "original".

    Where the data's transform adds noise (dequantise), so do the samples of a machine that learned such
    rows. Pictures and "original" are without it: the mean clean row that may lie behind each sample.
    """
    from gibbsian.belief.runs import is_belief
    from gibbsian.trained import load

    _check(sampler, levels, start, steps, precision, out, means)
    options = _options(sampler, sampler_option)
    if is_belief(path):
        dbn.check_sampling(sampler, levels, checkpoint, precision, device)
        dbn.sample(path, n, steps, start, label, means, seed, out)
        return
    if label is not None:
        raise GibbsianError(
            f"The run in {path} has no classes to hold; --class takes one of --model dbn with --labels."
        )
    opt.output_file(out, ".npz", ".png", ".gif")
    kind = out.suffix.lower()
    trained = load(path, checkpoint, device)
    record = _frames(steps) if kind == ".gif" else []
    opt.check_memory(trained.machine, n, "-n", len(record))
    if kind != ".npz" and trained.data.image_shape is None:
        raise GibbsianError("The data are no images, so there is no picture; write a .npz file.")
    found = _found(trained, n, steps, sampler, options, levels, start, seed, record, precision)
    if kind == ".npz":
        _save(trained, found, out, noisy)
    else:
        _draw(trained, found, out, means, noisy)
    way = "annealed over" if sampler == "annealed" else "after"
    begin = f"{steps} temperatures" if sampler == "annealed" else f"{steps} steps from {start}"
    typer.echo(f"Wrote {n} samples {way} {begin} to {out}.")
    _warn(found, sampler)


def _check(
    sampler: str, levels: int | None, start: str, steps: int, precision: str, out: Path,
    means: bool,
) -> None:  # fmt: skip
    """Refuse names that are none, and options that do not go together."""
    if means and out.suffix.lower() == ".npz":
        raise GibbsianError(
            "--means is for pictures; a .npz file holds samples and means alike, so leave it out."
        )
    if start not in _STARTS:
        raise GibbsianError(f"--start takes {', '.join(_STARTS)}, not {start!r}.")
    if sampler not in _SAMPLERS:
        raise GibbsianError(f"--sampler takes {', '.join(_SAMPLERS)}, not {sampler!r}.")
    if levels is not None and sampler not in ("tempering", "transitions"):
        raise GibbsianError(
            "--levels belongs to --sampler tempering or transitions; leave it out or name one of these."
        )
    if sampler != "annealed":
        return
    if start != "noise":
        raise GibbsianError(
            "Annealed chains start from the reference at the first temperature; leave --start out."
        )
    if precision != "fp32":
        raise GibbsianError("Annealing is done in fp32; leave --precision out.")
    if out.suffix.lower() == ".gif":
        raise GibbsianError(
            "A film shows chains of one machine, and annealed chains pass many; write a .png file."
        )
    if steps < 1:
        raise GibbsianError("Annealing needs at least one temperature; give --steps 1000, say.")


def _options(sampler: str, given: list[str] | None) -> dict[str, Any]:
    """Read the settings of a sampler."""
    from gibbsian.samplers import options

    return options.check(sampler, opt.table(given or [], "--sampler-option", "size=0.05"))


def _found(
    trained: "Trained", n: int, steps: int, sampler: str, options: dict[str, Any],
    levels: int | None, start: str, seed: int, record: list[int], precision: str,
) -> "Samples":  # fmt: skip
    """Sample in the way that was asked for."""
    from gibbsian import samplers
    from gibbsian.samplers.options import gibbs_langevin

    machine = trained.machine
    if sampler == "annealed":
        return samplers.annealed(machine, trained.reference, n, steps, seed)
    # Called where they are needed only: the reference is fitted to data, which others do without.
    kernels = {
        "gibbs": samplers.Gibbs,
        "tempering": lambda **how: samplers.Tempering(trained.reference, levels, **how),
        "trajectory": lambda **how: samplers.TrajectoryTempering(
            opt.trajectory(trained, seed), **how
        ),
        "transitions": lambda **how: samplers.TemperedTransitions(trained.reference, levels, **how),
        "driven": partial(samplers.Driven, steps=_DRIVEN * steps // 100),
        "langevin": samplers.Langevin,
        "gibbs-langevin": gibbs_langevin,
        "rates": lambda **how: samplers.RatesFPCD(_training_rows(trained, seed), **how),
    }
    kernel = kernels[sampler](**options)
    return samplers.sample(
        machine, n, steps, start="data" if start == "test" else start, generator=seed, sampler=kernel,
        data=_rows(trained, start, seed), record=record, precision=precision,
    )  # fmt: skip


def _warn(found: "Samples", sampler: str) -> None:
    """Say how many ladders nothing has gone up and down: their chains may be where they started."""
    trips = found.state.extra.get("round_trips")
    still = 0 if trips is None else int((trips == 0).sum())
    if trips is None or not still:
        return
    from gibbsian.errors import GibbsianWarning

    cure = "take more steps"
    if sampler == "trajectory":
        cure += (
            ", or train with --method ptt, which keeps clusters in balance all along the trajectory"
        )
    words = f"{still} of {len(trips)} chains saw no round trip of their ladder and may be where they started"
    warnings.warn(f"{words}; {cure}.", GibbsianWarning, stacklevel=2)


def _frames(steps: int) -> list[int]:
    """Choose the steps that a film shows."""
    count = min(_FRAMES, steps + 1)
    return sorted({round(i * steps / max(count - 1, 1)) for i in range(count)})


def _training_rows(trained: "Trained", seed: int) -> "Tensor":
    like = next(trained.machine.parameters())
    return trained.data.train.tensor(limit=_ROWS, generator=seed).to(like)


def _rows(trained: "Trained", start: str, seed: int) -> "Tensor | None":
    if start == "noise":
        return None
    part = opt.rows_of(trained.data, "test" if start == "test" else "train", "--start")
    return part.tensor(limit=_ROWS, generator=seed).to(next(trained.machine.parameters()))


def _clean(trained: "Trained", x: "Tensor", noisy: bool) -> "Tensor":
    """Return samples without the noise of their transform, unless it is asked for."""
    from gibbsian.noise import remove_noise

    return x.cpu() if noisy else remove_noise(trained, x).cpu()


def _save(trained: "Trained", found: "Samples", out: Path, noisy: bool) -> None:
    import numpy as np

    from gibbsian import checkpoint

    visible, buffer = found.samples, io.BytesIO()
    np.savez(
        buffer, samples=visible.cpu().numpy(), means=found.means.cpu().numpy(),
        original=trained.transform.inverse(_clean(trained, visible, noisy)).numpy(),
    )  # fmt: skip
    checkpoint.publish({out: buffer.getvalue()})


def _draw(trained: "Trained", found: "Samples", out: Path, means: bool, noisy: bool) -> None:
    import numpy as np

    from gibbsian import plots

    data = trained.data
    if found.trace is None:
        shown = found.means if means else _clean(trained, found.samples, noisy)
        pictures = data.to_images(shown)
        plots.save_images(pictures.reshape(len(shown), -1), pictures.shape[1:], out)
        return
    frames = np.stack([data.to_images(_clean(trained, frame, noisy)) for frame in found.trace])
    plots.save_gif(frames.reshape(*frames.shape[:2], -1), frames.shape[2:], out, 10)
