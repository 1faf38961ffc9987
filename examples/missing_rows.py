"""The missing-rows study on scikit-learn's digits: what an RBM can put back, and what long chains do.

A course report asked three things of a restricted Boltzmann machine, and this script answers each with
numbers: how many rows of an image can be hidden before the machine no longer knows what was there, and
does it matter which; what more hidden units buy; and why images "become less clear and more homogeneous"
when the chain that started at them runs for 10,000 steps instead of one.

    python examples/missing_rows.py

takes a few minutes on one core and writes its figures into the folder missing_rows/. On the command
line the same study of runs that are on disk is `gibbsian inpaint-study RUN…`.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

import gibbsian as gb
from gibbsian import plots
from gibbsian.inpainting import BANDS, Hidden, hidden_rows, walk
from gibbsian.plots import inpainting as figures


def main(
    hidden_units: Sequence[int] = (20, 100),
    updates: int = 20_000,
    rows: Sequence[int] = (1, 2, 3, 4),
    images: int = 200,
    repetitions: int = 5,
    steps: int = 200,
    chain: int = 10_000,
    out: Path = Path("missing_rows"),
) -> dict[int, list[Hidden]]:
    """Train, hide rows, let chains run; return the errors by number of hidden units."""
    data = gb.data.load("digits", seed=0)
    # Images as probabilities of ink: each repetition holds bits that are drawn from them.
    grey = data.test.transform.expected(data.test.raw(range(min(images, len(data.test)))))
    typical = data.train.transform.expected(data.train.raw(range(len(data.train)))).mean(dim=0)

    found, machines = {}, {}
    for count in hidden_units:
        trained = gb.train(
            gb.rbm(data.n_features, count), data, gb.PCD(steps=1, chains=100),
            updates=updates, seed=0, progress=sys.stderr.isatty(),
        )  # fmt: skip
        machines[count] = trained.machine
        found[count], repairs = hidden_rows(
            trained.machine, grey, data.image_shape, typical, rows, repetitions, steps, generator=1
        )
        print(f"\n{count} hidden units: squared error per hidden pixel")
        table(found[count])

    largest = max(hidden_units)
    draw_rows(found[largest], out)
    shown = {b: (pictures(r.damaged), pictures(r.repaired)) for b, r in repairs.items()}
    plots.save(figures.repaired_bands(pictures(grey), shown, data.image_shape), out / "repairs.png")
    draw_units(found, sorted(rows)[len(rows) // 2], out)
    draw_walk(machines[largest], grey, chain, data.image_shape, out)
    print(f"\nThe figures are in {out}.")
    return found


def draw_rows(found: Sequence[Hidden], out: Path) -> None:
    """Answer the first question: which rows, and how many."""
    curves = {
        b: [(h.rows, h.error, h.standard_error, h.baseline) for h in found if h.band == b]
        for b in BANDS
    }
    plots.save(figures.hidden_rows(curves), out / "rows.png")


def draw_units(found: Mapping[int, Sequence[Hidden]], rows: int, out: Path) -> None:
    """Answer the second: what hidden units buy where so many rows are hidden."""
    curves = {
        f"{b}, {rows} rows": [
            (n, h.error, h.standard_error)
            for n, hs in found.items()
            for h in hs
            if (h.band, h.rows) == (b, rows)
        ]
        for b in BANDS
    }
    plots.save(figures.hidden_units(curves), out / "hidden-units.png")


def draw_walk(
    machine: gb.BoltzmannMachine, images: torch.Tensor, steps: int, shape: Sequence[int], out: Path
) -> None:
    """Answer the third: what becomes of images whose chains nothing holds."""
    free = walk(machine, images, chains=50, steps=steps, generator=2)
    print("", *free.words(), sep="\n")
    plots.save(
        figures.distance(
            free.steps, free.distance, free.standard_error, free.others, free.forgotten
        ),
        out / "distance.png",
    )
    kept = [i for i, s in enumerate(free.steps) if s in (1, 10, 100, 1_000, 10_000)]
    states = torch.stack([pictures(free.states[i]) for i in (0, *kept)])
    picture = plots.strip(states, [0, *(free.steps[i] for i in kept)], shape)
    plots.save(picture, out / "chains.png")


def pictures(x: torch.Tensor) -> torch.Tensor:
    """The first eight images; columns are pixels from 0 to 1 here, so there is nothing to undo."""
    return x[:8]


def table(found: Sequence[Hidden]) -> None:
    """Print errors with standard errors, and their share of the mean image's error."""
    print("rows hidden  " + "".join(f"{b:<24s}" for b in BANDS))
    for rows in sorted({h.rows for h in found}):
        cells = (next(h for h in found if (h.band, h.rows) == (b, rows)) for b in BANDS)
        texts = (f"{h.error:.4f} ± {h.standard_error:.4f} ({h.share or 0:.0%})" for h in cells)
        print(f"{rows:<13d}" + "".join(f"{t:<24s}" for t in texts))


if __name__ == "__main__":
    main()
