"""gibbsian study: pseudo-likelihood against epochs and hidden units."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from gibbsian import estimators, recipes
from gibbsian.cli import options as opt
from gibbsian.errors import GibbsianError
from gibbsian.study import METRIC, study

NAME = "study"
EXAMPLES = """Example:

gibbsian study digits --hidden 10,20,50,100 --epochs 20 --out runs/study"""


def command(
    source: Annotated[str, typer.Argument(metavar="DATA", help="A named set or a file.")],
    hidden: Annotated[str, typer.Option(help="Numbers of hidden units.")] = "10,20,50,100",
    epochs: Annotated[int, typer.Option(help="Length of each run.", min=1)] = 20,
    model: Annotated[str, typer.Option(help="A model with finitely many visible values.")] = "rbm",
    method: Annotated[str, typer.Option(help="cd or pcd.")] = "pcd",
    steps: Annotated[int, typer.Option(help="Gibbs steps an update.", min=1)] = 1,
    batch_size: Annotated[int, typer.Option(help="Rows an update.", min=1)] = 100,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many training rows.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the named sets.")] = None,
    seed: opt.Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder for the table and the plot.")] = Path("study"),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Train machines of several sizes; show pseudo-likelihood against epochs and hidden units."""
    counts = opt.whole_numbers(hidden, "--hidden")
    recipe = recipes.find(model)
    dataset = recipes.load_data(recipe, source, limit=limit, data_dir=data_dir, seed=seed)
    found = study(
        model, dataset, counts, epochs,
        lambda: estimators.from_spec({"kind": method, "steps": steps}),
        progress=not quiet and sys.stderr.isatty(), batch_size=batch_size, lr=lr, seed=seed,
    )  # fmt: skip
    split = "validation" if dataset.validation is not None else "train"
    series = {
        n: ([r["epoch"] for r in records], [r[METRIC][split] for r in records if METRIC in r])
        for n, records in found.items()
    }
    if any(not values for _, values in series.values()):
        raise GibbsianError(
            f"The model {model} has no pseudo-likelihood, as its visible values are not finite in "
            "number; study an rbm, softmax-rbm or hopfield model."
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / "study.json").write_text(json.dumps({str(n): r for n, r in found.items()}, indent=1))
    from gibbsian import plots

    plots.save(plots.study(series), out / "study.png")
    marks = sorted({1, max(1, epochs // 4), max(1, epochs // 2), epochs})
    typer.echo(f"pseudo-likelihood of {split} rows, nats per row")
    typer.echo("hidden  " + "".join(f"epoch {e:<8d}" for e in marks))
    for n, (_, values) in series.items():
        typer.echo(f"{n:<8d}" + "".join(f"{values[e - 1]:<14.2f}" for e in marks))
    typer.echo(f"Wrote {out / 'study.json'} and {out / 'study.png'}.")
