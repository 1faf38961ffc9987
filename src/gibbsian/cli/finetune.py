"""gibbsian finetune: a classifier from a deep belief network, by backpropagation."""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from gibbsian.cli import options as opt
from gibbsian.errors import GibbsianError

NAME = "finetune"
_RESUMING = ("path", "resume", "overwrite", "as_json", "quiet")
EXAMPLES = """Examples:

gibbsian finetune runs/mnist-dbn --epochs 30

gibbsian finetune runs/mnist-dbn --dropout 0.5 --input-dropout 0.2 --max-norm 4 --transform scale

gibbsian finetune runs/mnist-dbn --resume"""


def command(
    path: opt.RunPath,
    epochs: Annotated[int, typer.Option(help="Passes over the data.", min=1)] = 30,
    batch_size: Annotated[int, typer.Option(help="Rows an update.", min=1)] = 100,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 0.001,
    optimizer: Annotated[str, typer.Option(help="adam, sgd, or another of torch.optim.")] = "adam",
    schedule: Annotated[str, typer.Option(help="constant, linear, …")] = "linear",
    dropout: Annotated[
        float, typer.Option(help="Probability with which a hidden unit is dropped.")
    ] = 0.0,
    input_dropout: Annotated[
        float, typer.Option(help="Probability with which a column of the data is dropped.")
    ] = 0.0,
    max_norm: Annotated[
        float | None, typer.Option(help="Largest norm of the weights into a hidden unit.")
    ] = None,
    average: Annotated[float, typer.Option(help="Decay of the Polyak average.")] = 0.0,
    patience: Annotated[
        int | None, typer.Option(help="Epochs without improvement to wait.", min=1)
    ] = None,
    transform: Annotated[
        str | None,
        typer.Option(help="Transform of the data, such as scale.", show_default="the run's"),
    ] = None,
    seed: opt.Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where it stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    quiet: opt.Quiet = False,
) -> None:
    """Turn a deep belief run into a classifier, and train that on the labels by backpropagation.

    It starts from the recognition weights. The parameters of the lowest validation error are kept in
    RUN/finetune/classifier.safetensors. Grey levels (--transform scale) serve it better than bits.
    """
    given = dict(locals())
    from gibbsian.belief import finetune, finetune_runs

    tell = None if quiet or as_json else typer.echo
    if resume:
        _check_resuming(given)
        found = finetune_runs.resume(path, tell=tell)
    else:
        settings = finetune.Settings(
            epochs=epochs, batch_size=batch_size, lr=lr, optimizer=optimizer, schedule=schedule,
            max_norm=max_norm, average=average, patience=patience, seed=seed,
        )  # fmt: skip
        found = finetune_runs.train(
            path, settings, dropout=dropout, input_dropout=input_dropout, transform=transform,
            overwrite=overwrite, tell=tell,
        )  # fmt: skip
    _show(found.errors, found.file, as_json)


def _check_resuming(given: Mapping[str, Any]) -> None:
    """Refuse settings beside --resume, which would have no effect."""
    if given["overwrite"]:
        raise GibbsianError("--resume goes on and --overwrite begins anew; give one of them.")
    for name, parameter in inspect.signature(command).parameters.items():
        if name not in _RESUMING and given[name] != parameter.default:
            raise GibbsianError(
                "--resume goes on with a fine-tuning exactly as it was begun; leave "
                f"--{name.replace('_', '-')} out, or begin anew with --overwrite."
            )


def _show(errors: dict[str, float], file: Path, as_json: bool) -> None:
    if as_json:
        words: dict[str, Any] = {"error": errors, "classifier": str(file)}
        typer.echo(json.dumps(words, allow_nan=False))
        return
    for name, error in errors.items():
        typer.echo(f"{name} error {100 * error:.2f} %")
    typer.echo(f"The classifier is in {file}.")
