"""Real-valued machines sampled from noise: which sampler serves whom, and beside learnergy.

    GIBBSIAN_DATA=DIR .venv/bin/python -m benchmarks.gaussian run fours gaussian-rbm --minutes 6
    GIBBSIAN_DATA=DIR .venv/bin/python -m benchmarks.gaussian run mnist learnergy-variance
    .venv/bin/python -m benchmarks.gaussian table

Data: mnist (grey levels of all digits), fours (those of the digit 4 alone), digits (scikit-learn's, 8 by 8).
Models: gaussian-rbm and relu-rbm by their recipes; learnergy-gaussian and learnergy-variance, by the settings
of learnergy's own examples but with as many hidden units as ours, for the same time. Time is that of the
processor, with one thread.

A run writes into OUT/DATA-MODEL: the trained machine, ``results.json``, and ``samples.png`` (a row a
sampler, a column a number of steps, 64 samples each; ``clean.png`` has them without the noise that the
recipe adds to the data, ``means.png`` their conditional means). Chains start from noise. Runs are resumed
where they stopped, and what is there is not made again. ``table`` writes ``table.md`` and ``table.json``
of all runs in OUT.
"""

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import gibbsian as gb
from benchmarks import budget, noise, sheet
from benchmarks.learnergy_gaussian import KINDS, Peer
from benchmarks.likeness import Judge, classifier, grey, pixels
from gibbsian import recipes
from gibbsian.data import Dataset

DATA = {"mnist": ("mnist", {}), "fours": ("mnist", {"classes": [4]}), "digits": ("digits", {})}
OURS = ("gaussian-rbm", "relu-rbm")
STEPS = (10, 100, 400, 5_000)


def load(name: str, model: str, noise: float | None = None, validation: int = 0) -> Dataset:
    """Load one of the data sets as the recipe of a machine does, or with another noise."""
    source, options = DATA[name]
    if validation:
        options = options | {"validation": validation}
    if noise is not None:
        options = options | {"transform": ["standardise-global", f"dequantise:{noise:g}"]}
    return recipes.load_data(recipes.find(model if model in OURS else OURS[0]), source, **options)


def judge(name: str, data: Dataset, out: Path) -> Judge:
    """Make the judge of a data set, with a classifier of all its classes that is fitted once."""
    source, _ = DATA[name]
    kept, rows, labels = out / f"{source}-classifier.pt", *grey(gb.data.load(source), "train")
    if not kept.is_file():
        torch.save(classifier(rows, labels), kept)
    net: nn.Sequential = torch.load(kept, weights_only=False)
    return Judge(data, net)


# Sampler, steps, what it drew as pixels, seconds, levels.
Found = tuple[str, int, dict[str, Tensor], float, int]


def drawn_by_ours(trained: gb.Trained, options: argparse.Namespace) -> Iterator[Found]:
    """Draw samples of a machine of ours by every sampler."""
    for name in options.samplers or [*noise.SAMPLERS, "annealed"]:
        found = noise.draw(trained, name, options.chains, options.steps, options.seconds)
        for at, d in found:
            clean = gb.remove_noise(trained, d.samples)
            drawn = {"clean": clean, "samples": d.samples, "means": d.means}
            drawn = {what: pixels(trained.data, x) for what, x in drawn.items()}
            yield name, at, drawn, d.seconds, d.levels


def drawn_by_peer(peer: Peer, options: argparse.Namespace) -> Iterator[Found]:
    """Draw samples of learnergy's machine by its own steps."""
    for at, samples, returned, seconds in peer.chains(
        options.chains, options.steps, options.seconds
    ):
        yield "its own steps", at, {"samples": samples, "means": returned}, seconds, 1


def evaluate(
    found: Iterator[Found], by: Judge, out: Path, options: argparse.Namespace
) -> list[Any]:
    """Take the figures of all samples, of their means and without noise, and keep 64 of each for pictures."""
    rows, kept = [], {}
    for name, at, drawn, seconds, levels in found:
        head = {"sampler": name, "steps": at, "seconds": seconds, "levels": levels}
        for what, x in drawn.items():
            if torch.isfinite(x).all():
                rows.append(head | {"what": what} | by.figures(x))
            else:
                rows.append(head | {"what": what, "crash": "values that are not finite"})
            kept[name, at, what] = x[:64]
        print(rows[-len(drawn)], flush=True)
    kept["real rows", options.steps[0], ""] = by.test[:64]
    torch.save(kept, out / "kept.pt")
    side = math.isqrt(by.test.shape[1])
    for what in ("clean", "samples", "means"):
        chosen = {(n, at): x for (n, at, w), x in kept.items() if w in (what, "")}
        sheet.save(chosen, (side, side), out / f"{what}.png", f"{out.name}: {what} from noise")
    return rows


def certificates(trained: gb.Trained, options: argparse.Namespace) -> dict[str, Any]:
    """Certify a machine with Gibbs, and with a tenth of the steps of tempering."""
    found = {}
    lengths = {"gibbs": options.certify_steps, "tempering": options.certify_steps // 10}
    for name, steps in lengths.items():
        if steps < 16:
            continue
        clock = budget.Stopwatch()
        made = gb.certify(
            trained, sampler=noise.SAMPLERS[name](trained), steps=steps, drift_steps=steps // 2,
            held_out="validation" if options.validation else "test",
        )  # fmt: skip
        found[name] = made.as_dict() | {"seconds": clock.seconds(), "steps": steps}
        print(name, *made.words, sep="\n  ", flush=True)
    return found


def run(options: argparse.Namespace) -> None:
    """Train, sample and judge one machine on one data set, each only where that is not done."""
    out = options.out / f"{options.data}-{options.model}"
    out.mkdir(parents=True, exist_ok=True)
    results = out / "results.json"
    data = load(options.data, options.model, options.noise, options.validation)
    found = json.loads(results.read_text()) if results.is_file() else {}

    def keep(**more: Any) -> None:
        found.update(more)
        results.write_text(json.dumps(found, indent=1))

    if options.model in KINDS:
        rows, _ = grey(data, "train")
        peer = Peer(options.model, rows, options.hidden)
        keep(training=peer.train(options.minutes, out))
        print(found["training"], flush=True)
        source, trained = drawn_by_peer(peer, options), None
    else:
        kept = dict(recipes.find(options.model).method)
        if options.refresh is not None:
            kept["refresh"] = options.refresh
        rate = {} if options.lr is None else {"lr": options.lr}
        trained, seconds = budget.train(
            options.model, data, options.hidden, options.minutes, out, gb.PCD(**kept), **rate
        )
        keep(training={"seconds": seconds, "updates": trained.step})
        source = drawn_by_ours(trained, options)
    if options.stop == "trained":
        return
    by = judge(options.data, data, options.out)
    if "floors" not in found:
        keep(floors=[by.floor(n) for n in (1_000, 64)])
    if "samples" not in found:
        try:
            keep(samples=evaluate(source, by, out, options))
        except (RuntimeError, ValueError) as error:  # a peer's machine that is no longer one
            if trained is not None:
                raise
            keep(samples=[], crash=f"{type(error).__name__}: {str(error)[:200]}")
    if trained is not None and options.stop != "sampled" and "certificates" not in found:
        keep(certificates=certificates(trained, options))


def main() -> None:
    """Run one machine, or write the table of all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("data", nargs="?", choices=tuple(DATA))
    parser.add_argument("model", nargs="?", choices=(*OURS, *KINDS))
    parser.add_argument("--minutes", type=float, default=6, help="of the processor, for training")
    parser.add_argument("--hidden", type=int, default=500)
    parser.add_argument("--noise", type=float, help="of ours, in standard deviations; the recipe's")
    parser.add_argument("--lr", type=float, help="of ours; the recipe's")
    parser.add_argument("--refresh", type=float, help="of ours: of chains, an update; the recipe's")
    parser.add_argument("--validation", type=int, default=0,
                        help="rows that certificates hold out in place of test rows")  # fmt: skip
    parser.add_argument("--chains", type=int, default=1_000)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--samplers", nargs="+", choices=(*noise.SAMPLERS, "annealed"))
    parser.add_argument("--seconds", type=float, default=120,
                        help="of the processor, for a sampler; fewer chains where it needs more")  # fmt: skip
    parser.add_argument("--certify-steps", type=int, default=20_000)
    parser.add_argument("--stop", choices=("trained", "sampled"), help="leave out what comes after")
    parser.add_argument("--out", type=Path, default=Path("runs/gaussian"))
    options = parser.parse_args()
    options.steps = tuple(options.steps)
    torch.set_num_threads(1)
    if options.what == "table":
        sheet.table(options.out)
    elif options.data is None or options.model is None:
        parser.error("run takes a data set and a model")
    else:
        run(options)


if __name__ == "__main__":
    main()
