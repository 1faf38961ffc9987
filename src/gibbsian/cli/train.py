"""gibbsian train: from data to a run."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gibbsian import estimators, recipes
from gibbsian.cli import options as opt
from gibbsian.cli.configuration import merged
from gibbsian.errors import GibbsianError
from gibbsian.trained import Trained, resume, train

NAME = "train"
EXAMPLES = """Examples:

gibbsian train digits --hidden 200 --updates 20000 --out runs/digits

gibbsian train mnist --classes 4 --model gaussian-rbm --epochs 200 --out runs/fours

gibbsian train --resume --out runs/digits"""

_Data = Annotated[
    str | None,
    typer.Argument(metavar="DATA", help="digits, mnist, fashion-mnist, cifar10, bars-and-stripes, "
                   "ising2d, or a .npy, .npz, .csv, .parquet, .h5 or IDX file."),
]  # fmt: skip


def command(
    source: _Data = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.")] = None,
    model: Annotated[str | None, typer.Option(help=f"One of {', '.join(recipes.RECIPES)}.")] = None,
    hidden: Annotated[int | None, typer.Option(help="Hidden units [500].")] = None,
    method: Annotated[str | None, typer.Option(help="cd or pcd [pcd].")] = None,
    steps: Annotated[int | None, typer.Option(help="Gibbs steps an update [1].")] = None,
    chains: Annotated[int | None, typer.Option(help="Persistent chains [100].")] = None,
    refresh: Annotated[
        float | None,
        typer.Option(help="Probability that a chain restarts from noise at an update."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows an update [100].")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.")] = None,
    updates: Annotated[int | None, typer.Option(help="Parameter updates [6000].")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="Name in torch.optim [sgd].")] = None,
    optimizer_option: Annotated[
        list[str] | None, typer.Option(help="Its settings, such as momentum=0.9.")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help="constant, linear, step, exponential or power [linear].")
    ] = None,
    schedule_option: Annotated[
        list[str] | None, typer.Option(help="Its settings, such as hold=0.2.")
    ] = None,
    l1: Annotated[float | None, typer.Option(help="L1 penalty on the couplings.")] = None,
    l2: Annotated[float | None, typer.Option(help="L2 penalty on the couplings.")] = None,
    center: Annotated[
        bool | None, typer.Option("--center/--no-center", help="Centred gradient [on].")
    ] = None,
    average: Annotated[
        float | None, typer.Option(help="Decay of the Polyak average [0.999].")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="normal, glorot or pca [normal].")] = None,
    visible_bias: Annotated[float | None, typer.Option(help="First visible bias.")] = None,
    hidden_bias: Annotated[float | None, typer.Option(help="First hidden bias.")] = None,
    classes: Annotated[
        str | None, typer.Option(help="Only these labels, such as 4 or 0,1.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many training rows.")] = None,
    transform: Annotated[
        str | None,
        typer.Option(help="threshold, stochastic-binarise, scale, standardise, one-hot, …"),
    ] = None,
    key: Annotated[str | None, typer.Option(help="Array in an .npz or .h5 file.")] = None,
    labels: Annotated[str | None, typer.Option(help="Column, key or file of labels.")] = None,
    validation: Annotated[str | None, typer.Option(help="Share, count or file.")] = None,
    test: Annotated[str | None, typer.Option(help="Share, count or file.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the named sets.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all randomness [0].")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps, … [cpu].")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads, fixed for the run.")] = None,
    log_every: Annotated[int | None, typer.Option(help="Updates between metrics.")] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(help="Updates between checkpoints.")
    ] = None,
    keep_last: Annotated[int | None, typer.Option(help="Checkpoints to keep [3].")] = None,
    keep_every: Annotated[int | None, typer.Option(help="Keep multiples of this too.")] = None,
    patience: Annotated[int | None, typer.Option(help="Stop early after so many records.")] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Smallest improvement that counts.")
    ] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for TensorBoard.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of these options.")] = None,
    resume_: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace the run in --out.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Train a machine on DATA and keep everything in a run folder.

    The default recipe is PCD-1 with a centred gradient, a linearly falling learning rate and a
    Polyak average. What the command line leaves open comes from --config, and then from the recipe.
    """
    given = {k: v for k, v in locals().items() if v is not None and k not in _NOT_SETTINGS}
    progress = not quiet and sys.stderr.isatty()
    if resume_:
        if out is None or source is not None or given or config is not None:
            raise GibbsianError(
                "--resume goes on with a run exactly as it was made, so it takes --out RUN alone."
            )
        _tell(resume(out, progress=progress), out)
        return
    chosen = merged(config, given, source)
    destination = out or Path("runs") / f"{Path(str(chosen['data'])).stem}-{chosen['model']}"
    _tell(_train(chosen, destination, progress, overwrite, tensorboard), destination)


_NOT_SETTINGS = {
    "source", "out", "config", "resume_", "overwrite", "quiet", "tensorboard",
}  # fmt: skip


def _train(
    chosen: dict[str, Any], out: Path, progress: bool, overwrite: bool, tensorboard: Path | None
) -> Trained:
    """Train as the merged options say."""
    recipe = recipes.find(chosen["model"])
    dataset = recipes.load_data(
        recipe, chosen["data"], seed=chosen["settings"].get("seed", 0), **chosen["load"]
    )
    machine = recipes.build(chosen["model"], dataset, chosen["hidden"])
    method = dict(chosen["method"])
    if method["kind"] == "pcd":
        method = dict(recipe.method) | method
    estimator = estimators.from_spec(method)
    settings = dict(recipe.settings) | chosen["settings"]
    opt.check_device(settings.get("device", "cpu"))
    return train(
        machine, dataset, estimator, out=out, progress=progress, overwrite=overwrite,
        tensorboard=tensorboard, **settings,
    )  # fmt: skip


def _tell(result: Trained, out: Path) -> None:
    typer.echo(f"Trained {result.step} updates; the run is in {out}.")
    typer.echo(f"Next: gibbsian report {out}")
