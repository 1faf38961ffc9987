"""gibbsian study: pseudo-likelihood against epochs and hidden units."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from gibbsian.cli import options as opt

NAME = "study"
EXAMPLES = """Examples:

gibbsian study digits --hidden 10,20,50,100 --epochs 20 --out runs/study

gibbsian study table.csv --method cd --steps 5 --hidden 2,4,8"""


def command(
    source: Annotated[str, typer.Argument(metavar="DATA", help="A named set or a file.")],
    hidden: Annotated[str, typer.Option(help="Numbers of hidden units.")] = "10,20,50,100",
    epochs: Annotated[int, typer.Option(help="Length of each run.", min=1)] = 20,
    model: Annotated[str, typer.Option(help="One of the models of gibbsian train.")] = "rbm",
    method: Annotated[str, typer.Option(help="cd or pcd.")] = "pcd",
    steps: Annotated[int, typer.Option(help="Gibbs steps an update.", min=1)] = 1,
    batch_size: Annotated[int, typer.Option(help="Rows an update.", min=1)] = 100,
    lr: Annotated[
        float | None,
        typer.Option(help="Learning rate.", show_default="what suits the units"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="At most so many training rows.", show_default="all")
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of the named sets.", show_default="GIBBSIAN_DATA, or a download"),
    ] = None,
    seed: opt.Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder for the table and the plot.")] = Path("study"),
    quiet: opt.Quiet = False,
) -> None:
    """Train machines of several sizes; show pseudo-likelihood against epochs and hidden units.

    The pseudo-likelihood is the exact one of up to 1,000 validation rows, in nats per row.
    """
    from gibbsian import checkpoint, estimators, plots, recipes
    from gibbsian.study import METRIC, study

    counts = opt.counts(hidden, "--hidden")
    recipe = recipes.find(model)
    spec = {"kind": method, "steps": steps}
    if method.lower() == "pcd":
        spec = dict(recipe.method) | spec
    estimators.from_spec(spec)
    opt.output_folder(out)
    dataset = recipes.load_data(recipe, source, limit=limit, data_dir=data_dir, seed=seed)
    split = "validation" if dataset.validation is not None else "train"
    options: dict[str, Any] = {} if lr is None else {"lr": lr}
    found = {}
    for count, records in study(
        model, dataset, counts, epochs, lambda: estimators.from_spec(spec),
        progress=not quiet and sys.stderr.isatty(), batch_size=batch_size, seed=seed, **options,
    ):  # fmt: skip
        found[count] = records
        # After each run, so that a study that is stopped keeps what it has.
        text = json.dumps({str(n): r for n, r in found.items()}, indent=1)
        checkpoint.publish({out / "study.json": text.encode()})
    series = {
        n: ([r["epoch"] for r in records], [r[METRIC][split] for r in records])
        for n, records in found.items()
    }
    plots.save(plots.study(series), out / "study.png")
    _table(series, epochs, split)
    typer.echo(f"Wrote {out / 'study.json'} and {out / 'study.png'}.")


def _table(
    series: Mapping[int, tuple[Sequence[Any], Sequence[float]]], epochs: int, split: str
) -> None:
    marks = sorted({1, max(1, epochs // 4), max(1, epochs // 2), epochs})
    typer.echo(f"pseudo-likelihood of {split} rows, nats per row")
    typer.echo("hidden  " + "".join(f"epoch {e:<8d}" for e in marks))
    for n, (_, values) in sorted(series.items()):
        typer.echo(f"{n:<8d}" + "".join(f"{values[e - 1]:<14.2f}" for e in marks))
