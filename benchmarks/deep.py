"""A deep Boltzmann machine on MNIST, trained for so many minutes: its variational test bound.

    export GIBBSIAN_DATA=DIR
    .venv/bin/python -m benchmarks.deep dbm --minutes 90 --first-minutes 30 --hidden 500,1000 --out runs/dbm

Bits are drawn anew from the grey levels at each visit; the test bits are drawn once, with seed 0. The
learning rate falls to zero by the clock. The first of the minutes are an RBM's, of the lowest two layers, as
which the deep machine begins (`gibbsian.growing`); it is trained as by `benchmarks.likelihood long`. The same
command goes on with a run that was killed, from its last checkpoint; one that is trained is only evaluated,
and one that is evaluated only shown.

Reference: −84.62 nats (Salakhutdinov & Hinton 2009; two layers of 500 and 1000 units, pre-trained).
"""

import argparse
import json
import math
import resource
import time
from pathlib import Path

import torch

import gibbsian as gb
from benchmarks import likelihood
from benchmarks.budget import Budget
from gibbsian import recipes
from gibbsian.cli import options as opt
from gibbsian.data import Dataset

TEST_BITS = 0
SETTINGS = ("lr", "l2", "prior_scale", "whiten", "pretrain")
# Begun as an RBM. Plain steps and 100 chains lower its bound by half a nat and more; whitened, and with more
# chains, it stays. From random couplings, whitened at rates of 0.1 and 0.3, the top layer froze.
DBM = {"lr": 0.05, "whiten": 0.3, "prior_scale": 0.12}


def first(options: argparse.Namespace, data: Dataset) -> Path:
    """Train the RBM that the deep machine begins as; return the folder of its run."""
    hidden, out = options.hidden.split(",")[0], options.out / "first"
    asked = ["long", "--hidden", hidden, "--minutes", options.first_minutes, "--seed", options.seed,
             "--precision", options.precision, "--out", out]  # fmt: skip
    how = likelihood.reader().parse_args([str(a) for a in asked])
    likelihood.stages(how, data)
    return likelihood.last(how)


def train(options: argparse.Namespace, data: Dataset) -> gb.Trained:
    """Train for the time that is given, go on with a run, or open one that is finished."""
    place, told = options.out / "run", options.out / "training.json"
    if told.is_file():
        return gb.load(place)
    start = {"begin": str(first(options, data))} if options.first_minutes else {}
    budget = Budget(options.minutes - options.first_minutes, time.perf_counter)
    hooks = {"schedule": budget.schedule, "callbacks": [budget], "progress": False}
    if (place / "config.toml").is_file():
        found = gb.resume(place, **hooks)
    else:
        given = {k: getattr(options, k) for k in SETTINGS if getattr(options, k) is not None}
        method = gb.PCD(chains=options.chains, steps=options.steps)
        machine = recipes.build("dbm", data, opt.sizes(options.hidden, "--hidden"))
        found = gb.train(
            machine, data, method, out=place, updates=10**8, log_every=options.every,
            checkpoint_every=options.every, seed=options.seed, batch_size=options.batch_size,
            precision=options.precision, **hooks, **DBM | start | given,
        )  # fmt: skip
    figures = {
        "updates": found.step, "minutes": budget.spent / 60,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip
    told.write_text(json.dumps(figures))
    print(
        f"{found.step} updates in {budget.spent / 60:.1f} minutes, peak {figures['peak_mb']:.0f} MB",
        flush=True,
    )
    return found


def bounds(found: gb.Trained, data: Dataset, options: argparse.Namespace) -> dict[str, float]:
    """Return the test bound by AIS, reverse AIS and the bridge, in nats, with 95 % intervals of log Z.

    Reverse chains start at the ladder's top, or where there is none from data and from noise. `rows_error` is
    the standard error of the mean over test rows, which adds to it when other test rows are meant.
    """
    machine, begin = found.machine, time.perf_counter()
    z = gb.evaluators.partition(
        machine, data.train.tensor(limit=1_000, generator=options.seed), reference=found.reference,
        chains=options.ais_chains, temperatures=options.temperatures,
        starts={} if options.ladder_steps else None, equilibrate=options.equilibrate,
        ladder_steps=options.ladder_steps, generator=options.seed,
    )  # fmt: skip
    print("; ".join(z.words()), flush=True)
    assert z.ais is not None
    rows = data.split("test").tensor(generator=TEST_BITS)
    free = gb.evaluators.variational_free_energies(machine, rows)
    mean = -float(free.mean())
    ways = {"ais": z.ais} | {f"reverse_{k}": e for k, e in z.reverse.items()}
    out: dict[str, float] = {}
    for name, e in ways.items():
        out[name], out[f"{name}_ess"] = mean - e.log_z, e.ess
        out[f"{name}_low"], out[f"{name}_high"] = mean - e.high, mean - e.low
    if z.ladder is not None:
        out["bridge"] = mean - z.ladder.log_z
        out["bridge_low"], out["bridge_high"] = mean - z.ladder.high, mean - z.ladder.low
        out["round_trips"], out["levels"] = z.ladder.round_trips, len(z.ladder.betas)
    out["gap"] = max(z.gaps.values())
    out["rows_error"] = float(free.std()) / math.sqrt(len(free))
    out["evaluation_minutes"] = (time.perf_counter() - begin) / 60
    out["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return out


def tell(found: dict[str, float]) -> None:
    """Print a line for each way to log Z."""
    for way in (k for k in found if f"{k}_low" in found):
        ess = f", {found[f'{way}_ess']:.0f} effective chains" if f"{way}_ess" in found else ""
        low, high = found[f"{way}_low"], found[f"{way}_high"]
        print(f"test bound {found[way]:.2f} [{low:.2f}, {high:.2f}] nats by {way}{ess}")
    print(
        f"gap {found['gap']:.2f} nats; mean over test rows ± {found['rows_error']:.2f}; evaluated in "
        f"{found['evaluation_minutes']:.1f} minutes, peak {found['peak_mb']:.0f} MB",
        flush=True,
    )


def dbm(options: argparse.Namespace) -> None:
    """Train and evaluate a deep Boltzmann machine."""
    data = gb.data.load("mnist", validation=options.validation)
    found, told = train(options, data), options.out / "bounds.json"
    if not told.is_file():
        with torch.no_grad():
            told.write_text(json.dumps(bounds(found, data, options), indent=1))
    tell(json.loads(told.read_text()))


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("what", choices=("dbm",))
    made.add_argument("--hidden", default="500,1000")
    made.add_argument("--minutes", type=float, default=90)
    made.add_argument("--first-minutes", type=float, default=30, help="of them, the first RBM's")
    for name in SETTINGS:
        kind = int if name == "pretrain" else float
        option = "--" + name.replace("_", "-")
        made.add_argument(option, type=kind, help="in place of what the benchmark takes")
    made.add_argument("--validation", type=int, help="validation rows; 0: learn from them as well")
    made.add_argument("--precision", default="auto", help="of the products of chains")
    made.add_argument("--batch-size", type=int, default=200)
    made.add_argument("--chains", type=int, default=500)
    made.add_argument("--steps", type=int, default=1)
    made.add_argument("--every", type=int, default=2_000, help="updates between checkpoints")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--ais-chains", type=int, default=200)
    made.add_argument("--temperatures", type=int, default=20_000)
    made.add_argument("--ladder-steps", type=int, default=500)
    made.add_argument("--equilibrate", type=int, default=10_000)
    made.add_argument("--out", type=Path, default=Path("runs/dbm"))
    return made


def main() -> None:
    """Run the benchmark."""
    reader = parser()
    options = reader.parse_args()
    if not 0 <= options.first_minutes < options.minutes:
        reader.error("--first-minutes are a part of --minutes: give fewer, or 0 for none")
    options.out.mkdir(parents=True, exist_ok=True)
    {"dbm": dbm}[options.what](options)


if __name__ == "__main__":
    main()
