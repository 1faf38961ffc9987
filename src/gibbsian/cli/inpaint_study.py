"""gibbsian inpaint-study: which and how many rows of an image can be hidden, and where chains go."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gibbsian.cli import options as opt
from gibbsian.cli.evaluate import progress_bar
from gibbsian.errors import GibbsianError

if TYPE_CHECKING:
    from torch import Tensor

    from gibbsian.inpainting import Hidden, Walk
    from gibbsian.repair import Repair
    from gibbsian.trained import Trained

NAME = "inpaint-study"
EXAMPLES = """Examples:

gibbsian inpaint-study runs/digits

gibbsian inpaint-study runs/20 runs/100 runs/500 --hide-rows 3,7,14 --out study

gibbsian inpaint-study runs/digits --quick"""

# images, repetitions, Gibbs steps of inpainting, free chains and their steps
_USUAL = (100, 3, 200, 32, 10_000)
_QUICK = (20, 2, 40, 8, 1_000)
_SHOWN, _PICTURED = 8, (0, 1, 10, 100, 1_000, 10_000)


def command(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs.")],
    hide_rows: Annotated[
        str | None,
        typer.Option(help="Numbers of rows to hide, such as 1,4,7.", show_default="up to half"),
    ] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    images: Annotated[
        int | None, typer.Option(help="Images to repair.", min=2, show_default="100")
    ] = None,
    repetitions: Annotated[
        int | None, typer.Option(help="Chains for each image.", min=1, show_default="3")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Gibbs steps of inpainting.", min=1, show_default="200")
    ] = None,
    chains: Annotated[
        int | None, typer.Option(help="Free chains from images.", min=3, show_default="32")
    ] = None,
    free_steps: Annotated[
        int | None, typer.Option(help="Steps of the free chains.", min=8, show_default="10000")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, for a first look.")] = False,
    seed: opt.Seed = 0,
    device: opt.Device = "cpu",
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to.", show_default="one in the first run")
    ] = None,
    quiet: opt.Quiet = False,
) -> None:
    """Hide rows of images and draw them anew; let chains run from images with nothing held.

    The top, middle and bottom rows are hidden, more and more of them, and the squared error of the
    hidden pixels is given with its standard error beside that of filling in the training rows' means.
    With several runs of the same data, the error is shown against their hidden units. Free chains are
    those of the first run.
    """
    from gibbsian.inpainting import BANDS, walk

    asked = (images, repetitions, steps, chains, free_steps)
    usual = _QUICK if quick else _USUAL
    sizes = [u if a is None else a for a, u in zip(asked, usual, strict=True)]
    counts = None if hide_rows is None else opt.counts(hide_rows, "--hide-rows")
    runs = _open(paths, device)
    first = next(iter(runs.values()))
    for trained in runs.values():
        held = len(opt.rows_of(trained.data, split, "--split"))
        count = min(sizes[0], held) * sizes[1]
        opt.check_memory(trained.machine, count, "--images or --repetitions")
    target = opt.output_folder(out or paths[0] / "inpaint-study")
    found: dict[str, list[Hidden]] = {}
    shown: Mapping[str, Repair] = {}
    with progress_bar(quiet) as progress:
        for name, trained in runs.items():
            stage = (
                None if progress is None else lambda _, done, n=name: progress(f"rows, {n}", done)
            )
            found[name], repairs = _errors(trained, split, counts, sizes, seed, stage)
            shown = shown or repairs
        x = _rows(first, split, sizes[0], seed)
        free = walk(first.machine, x, sizes[3], sizes[4], seed, progress)
    _write(runs, found, free, target)
    written = _draw(first, shown, found, runs, free, target)
    for name in found:
        _table(name, runs[name], found[name], BANDS)
    typer.echo("")
    for sentence in (*_words(next(iter(found.values()))), *free.words()):
        typer.echo(sentence)
    typer.echo(f"Wrote study.json, {', '.join(written)} to {target}.")


def _open(paths: Sequence[Path], device: str) -> dict[str, "Trained"]:
    """Open the runs under short names, and make sure that one study can hold them all."""
    from gibbsian.trained import load

    names = [p.name or str(p) for p in paths]
    if len(set(names)) < len(names):
        names = [str(p) for p in paths]
    if len(set(names)) < len(names):
        raise GibbsianError("A run is named twice; give each once.")
    runs = {n: load(p, "latest", device) for n, p in zip(names, paths, strict=True)}
    first = next(iter(runs.values()))
    for name, trained in runs.items():
        if trained.data.image_shape is None:
            raise GibbsianError(
                f"The study hides rows of images, and the data of {name} are none; give a run that was "
                "trained on images."
            )
        same = trained.data.fingerprint == first.data.fingerprint
        if not same or trained.data.spec != first.data.spec:
            raise GibbsianError(
                f"The runs were trained on other data, splits or transforms ({name}), so their errors "
                "cannot be compared; study them one by one."
            )
    return runs


def _rows(trained: "Trained", split: str, images: int, seed: int) -> "Tensor":
    """Return rows as the machine takes them: probabilities of a 1, and not bits, where it takes those."""
    from torch import Generator

    from gibbsian.units import base as unit

    part = opt.rows_of(trained.data, split, "--split")
    like = next(trained.machine.parameters())
    if not all(leaf.domain.rates for leaf in unit.leaves(trained.machine.layers[0])):
        return part.tensor(limit=images, generator=seed).to(like)
    raw = part.raw(range(min(images, len(part))))
    return part.transform.expected(raw, Generator().manual_seed(seed)).to(like)


def _errors(
    trained: "Trained", split: str, counts: Sequence[int] | None, sizes: Sequence[int], seed: int,
    progress: Any,
) -> tuple[list["Hidden"], dict[str, "Repair"]]:  # fmt: skip
    """Measure one run."""
    from gibbsian.inpainting import default_counts, hidden_rows

    images, repetitions, steps = sizes[:3]
    x = _rows(trained, split, images, seed)
    typical = _rows(trained, "train", 10_000, seed).mean(dim=0)
    shape = trained.data.image_shape
    wanted = default_counts(shape) if counts is None else counts
    return hidden_rows(
        trained.machine, x, shape, typical, wanted, repetitions, steps, seed, progress
    )


def _hidden_units(trained: "Trained") -> int:
    return sum(trained.machine.sizes[1:])


def _write(
    runs: Mapping[str, "Trained"],
    found: Mapping[str, Sequence["Hidden"]],
    free: "Walk",
    target: Path,
) -> None:
    from gibbsian import checkpoint

    content = {
        "runs": {
            name: {
                "hidden_units": _hidden_units(runs[name]),
                "step": runs[name].step,
                "errors": [point.as_dict() for point in points],
            }
            for name, points in found.items()
        },
        "free_chains": free.as_dict() | {"run": next(iter(runs)), "words": free.words()},
    }
    text = json.dumps(content, indent=1, allow_nan=False)
    checkpoint.publish({target / "study.json": text.encode()})


def _draw(
    first: "Trained", shown: Mapping[str, "Repair"], found: Mapping[str, Sequence["Hidden"]],
    runs: Mapping[str, "Trained"], free: "Walk", target: Path,
) -> list[str]:  # fmt: skip
    """Draw the figures; return their names."""
    from gibbsian import plots
    from gibbsian.inpainting import BANDS
    from gibbsian.noise import remove_noise
    from gibbsian.plots import inpainting as figures

    data = first.data
    points = next(iter(found.values()))
    by_band = {
        b: [(p.rows, p.error, p.standard_error, p.baseline) for p in points if p.band == b]
        for b in BANDS
    }

    def flat(x: Any) -> Any:
        pictures = data.to_images(x[:_SHOWN])
        return pictures.reshape(len(pictures), -1)

    shape = data.to_images(shown["top"].original[:1]).shape[1:]
    pairs = {b: (flat(r.damaged), flat(r.repaired)) for b, r in shown.items()}
    kept = [i for i, s in enumerate(free.steps) if s in _PICTURED or i == len(free.steps) - 1]
    # Samples at all steps: means at some would look smoother than the image that the chain began at.
    trace = [flat(remove_noise(first, free.states[i])) for i in kept]
    made = {
        "rows.png": figures.hidden_rows(by_band),
        "repairs.png": figures.repaired_bands(flat(shown["top"].original), pairs, shape),
        "chains.png": plots.strip(_stack(trace), [free.steps[i] for i in kept], shape),
        "distance.png": figures.distance(
            free.steps, free.distance, free.standard_error, free.others, free.forgotten
        ),
    }
    if len(runs) > 1:
        made["hidden-units.png"] = figures.hidden_units(_against_units(runs, found))
    for name, figure in made.items():
        plots.save(figure, target / name)
    return list(made)


def _stack(trace: Sequence[Any]) -> Any:
    import numpy as np

    return np.stack(trace)


def _against_units(
    runs: Mapping[str, "Trained"], found: Mapping[str, Sequence["Hidden"]]
) -> dict[str, list[tuple[int, float, float]]]:
    """Return error against hidden units for each band, at the middle number of rows."""
    counts = sorted({p.rows for points in found.values() for p in points})
    rows = counts[len(counts) // 2]
    out: dict[str, list[tuple[int, float, float]]] = {}
    for name, points in found.items():
        for p in points:
            if p.rows == rows:
                entry = (_hidden_units(runs[name]), p.error, p.standard_error)
                out.setdefault(f"{p.band}, {rows} rows", []).append(entry)
    return out


def _table(name: str, trained: "Trained", points: Sequence["Hidden"], bands: Sequence[str]) -> None:
    typer.echo(f"\n{name}: {_hidden_units(trained):,} hidden units")
    typer.echo("squared error per hidden pixel ± standard error (share of the mean's)")
    typer.echo("rows  " + "".join(f"{b:<26s}" for b in bands).rstrip())
    for rows in sorted({p.rows for p in points}):
        cells = {p.band: p for p in points if p.rows == rows}
        texts = [
            f"{cells[b].error:.4f} ± {cells[b].standard_error:.4f} ({_percent(cells[b].share)})"
            for b in bands
        ]
        typer.echo(f"{rows:<6d}" + "".join(f"{t:<26s}" for t in texts).rstrip())


def _percent(share: float | None) -> str:
    return "blank" if share is None else f"{100 * share:.0f} %"


def _words(points: Sequence["Hidden"]) -> list[str]:
    """Say which rows matter most, at the largest number hidden."""
    most = max(p.rows for p in points)
    ordered = sorted((p for p in points if p.rows == most), key=lambda p: p.error)
    best, worst = ordered[0], ordered[-1]
    apart = worst.error - best.error
    error = (best.standard_error**2 + worst.standard_error**2) ** 0.5
    if apart < 2 * error:
        return [f"With {most} rows hidden no band is surely harder than another."]
    return [
        f"With {most} rows hidden the {worst.band} ones are the hardest ({worst.error:.4f} per pixel) and "
        f"the {best.band} ones the easiest ({best.error:.4f}); of what the mean image leaves open, "
        f"{_percent(worst.share)} and {_percent(best.share)} remain."
    ]
