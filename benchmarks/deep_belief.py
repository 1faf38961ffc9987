"""Deep belief networks on MNIST: test errors of up-down, of fine-tuning, of RBM features; classes from noise.

    GIBBSIAN_DATA=DIR .venv/bin/python -m benchmarks.deep_belief updown --minutes 120
    GIBBSIAN_DATA=DIR .venv/bin/python -m benchmarks.deep_belief finetune --minutes 90
    GIBBSIAN_DATA=DIR .venv/bin/python -m benchmarks.deep_belief features --minutes 30
    GIBBSIAN_DATA=DIR .venv/bin/python -m benchmarks.deep_belief classes

``updown`` trains the stack and the up-down algorithm in OUT/dbn, ``finetune`` the classifier from it,
``classes`` draws ten of each digit from noise by it; ``features`` trains an RBM in OUT/rbm and scikit-learn's
logistic regression on its hidden means. Each writes OUT/NAME.json. When the minutes are over, a command
stops at the next update with a checkpoint; the same command goes on from there. Grey levels are taken as
probabilities of a 1. References: 1.25 % up-down (Hinton, Osindero & Teh 2006), 1.15 % backpropagation and
0.92 % with dropout besides (Hinton et al. 2012), 1.83 % RBM 1024 with logistic regression (yell's RBM).
"""

import argparse
import json
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gibbsian as gb
from gibbsian import plots, runs, trained
from gibbsian.belief import finetune, finetune_runs, updown
from gibbsian.belief import runs as belief_runs
from gibbsian.data import Dataset
from gibbsian.evaluators import deep_belief

# CD-1 at a large rate, not centred, with few hidden units on. Such features tell digits apart far better than
# those of a likelier machine: 1.9 % against 3.4 % by PCD-1, centred, after 10,000 updates, on validation.
SPARSE: dict[str, Any] = {"center": False, "biases": {"1": -3.0}}

REFERENCES = {"updown": 1.25, "finetune": 0.92, "features": 1.83}


def load(options: argparse.Namespace) -> Dataset:
    """Load the data, grey levels as rates."""
    return gb.data.load(options.data, transform="scale", validation=options.validation)


@contextmanager
def within(minutes: float) -> Iterator[None]:
    """Interrupt what runs inside after so many minutes, as Ctrl-C would: it saves before it stops."""
    # A shell's `command &` starts programs that ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit("The minutes are over; the same command goes on from here.") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def minutes_of(*folders: Path) -> float:
    """Add up the minutes that the records of runs span, without the pauses between two commands."""
    total = 0.0
    for folder in folders:
        times = [r["time"] for r in runs.open_run(folder).metrics()] if runs.is_run(folder) else []
        gaps = [b - a for a, b in pairwise(times)]
        usual = sorted(gaps)[len(gaps) // 2] if gaps else 0.0
        total += sum(g for g in gaps if g < 10 * usual + 1) + usual
    return total / 60


def write(out: Path, name: str, found: dict[str, Any]) -> None:
    """Keep and print what a command found."""
    found["reference"] = REFERENCES.get(name)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


def up_down(options: argparse.Namespace) -> None:
    """Train the stack and both directions; the test error."""
    folder, data = options.out / "dbn", load(options)
    with within(options.minutes):
        if runs.is_run(folder):
            found = belief_runs.resume(folder, progress=False, tell=print)
        else:
            settings = updown.Settings(
                epochs=options.epochs or 180,
                lr=options.updown_lr,
                top_lr=options.top_lr,
                steps=options.chain,
                persistent=options.persistent,
                discriminative=options.discriminative,
                precision=options.precision,
                seed=options.seed,
            )
            found = belief_runs.train(
                data, options.hidden, visible=gb.Bernoulli(data.n_features), labels=True,
                method=gb.CD(), up_down=settings, out=folder, progress=False, tell=print,
                updates=options.updates, lr=options.lr, seed=options.seed, threads=options.threads,
                precision=options.precision, **SPARSE,
            )  # fmt: skip
    assert data.test is not None
    x, labels = data.test.tensor(), torch.as_tensor(data.test.labels)
    stages = [*sorted((folder / "layers").iterdir()), folder / "updown"]
    write(options.out, "updown", {
        "test_error": 100 * deep_belief.label_error(found.network, x, labels),
        "test_error_20_passes": 100 * deep_belief.label_error(found.network, x, labels, 20, 0),
        "stage": found.stage, "sizes": list(found.network.sizes),
        "minutes": minutes_of(*stages), "updates": options.updates,
    })  # fmt: skip


def fine_tune(options: argparse.Namespace) -> None:
    """Train the classifier from the stack; the test error."""
    folder = options.out / "dbn"
    with within(options.minutes):
        if runs.is_run(folder / "finetune"):
            found = finetune_runs.resume(folder, tell=print)
        else:
            settings = finetune.Settings(
                epochs=options.epochs or 60, lr=options.tune_lr, average=0.999, max_norm=options.max_norm,
                seed=options.seed,
            )  # fmt: skip
            found = finetune_runs.train(
                folder, settings, dropout=options.dropout, input_dropout=options.input_dropout,
                tell=print,
            )  # fmt: skip
    errors = {f"{k}_error": 100 * e for k, e in found.errors.items()}
    write(options.out, "finetune", errors | {
        "minutes": minutes_of(folder / "finetune"),
        "dropout": options.dropout, "input_dropout": options.input_dropout,
    })  # fmt: skip


def means(machine: gb.BoltzmannMachine, rows: Tensor) -> Tensor:
    """Return the hidden means of rows."""
    fields = machine.joints[0].up
    with torch.no_grad():
        parts = [machine.layers[1].conditional(fields(x))["bias"] for x in rows.split(4096)]
    return torch.cat(parts)


def features(options: argparse.Namespace) -> None:
    """Train an RBM, and logistic regression on its hidden means; the test error."""
    from sklearn.linear_model import LogisticRegression

    folder, data = options.out / "rbm", load(options)
    with within(options.minutes):
        if runs.is_run(folder):
            found = trained.resume(folder, progress=False)
        else:
            machine = gb.rbm(data.n_features, options.features)
            found = gb.train(
                machine, data, gb.CD(), out=folder, progress=False, updates=options.updates,
                lr=options.lr, seed=options.seed, threads=options.threads,
                precision=options.precision, **SPARSE,
            )  # fmt: skip
    rows = {k: means(found.machine, p.tensor()).numpy() for k, p in _parts(data).items()}
    labels = {k: p.labels for k, p in _parts(data).items()}
    begun, tried = time.monotonic(), {}

    def wrong(strength: float, *learned: str) -> dict[str, float]:
        """Fit to these parts; return the errors of all in percent."""
        model = LogisticRegression(C=strength, max_iter=options.iterations)
        model.fit(*(np.concatenate([of[k] for k in learned]) for of in (rows, labels)))
        return {k: 100 * float((model.predict(rows[k]) != labels[k]).mean()) for k in rows}

    for strength in options.strengths:
        tried[strength] = wrong(strength, "train")
    best = min(tried, key=lambda c: tried[c]["validation"])
    # Validation rows have chosen; then they are rows to learn from like others.
    whole = wrong(best, "train", "validation")
    write(options.out, "features", {
        "test_error": whole["test"], "test_error_without_validation_rows": tried[best]["test"],
        "validation_error": tried[best]["validation"],
        "train_error": tried[best]["train"], "minutes": minutes_of(folder),
        "minutes_regression": (time.monotonic() - begun) / 60, "updates": found.step,
        "hidden": options.features, "strength": best,
        "validation_errors": {c: e["validation"] for c, e in tried.items()},
    })  # fmt: skip


def _parts(data: Dataset) -> dict[str, Any]:
    return {"train": data.train, "validation": data.validation, "test": data.test}


def classes(options: argparse.Namespace) -> None:
    """Draw ten of each class from noise: a row a class; means of the last pass down."""
    found = belief_runs.load(options.out / "dbn")
    labels = [c for c in found.network.classes for _ in range(10)]
    begun = time.monotonic()
    made = found.network.generate(len(labels), options.steps, label=labels, generator=options.seed)
    for name, shown in (("classes", made.means), ("classes-samples", made.samples)):
        pictures = found.data.to_images(shown)
        file = options.out / f"{name}.png"
        plots.save_images(pictures.reshape(len(pictures), -1), pictures.shape[1:], file)
    told = found.network.classify(made.samples)
    write(options.out, "classes", {
        "steps": options.steps, "seconds": time.monotonic() - begun,
        "told_as_their_class": float((told == torch.tensor(labels)).double().mean()),
    })  # fmt: skip


COMMANDS = {"updown": up_down, "finetune": fine_tune, "features": features, "classes": classes}


def main(arguments: Sequence[str] | None = None) -> None:
    """Obey one of the commands."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--data", default="mnist")
    parser.add_argument(
        "--validation", type=int, help="validation rows; 0: learn from them as well"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/deep-belief"))
    parser.add_argument("--minutes", type=float, default=120.0, help="stop when they are over")
    parser.add_argument("--hidden", default="500,500,2000")
    parser.add_argument("--features", type=int, default=1024, help="hidden units of features")
    parser.add_argument("--precision", default="auto", help="of the products of RBMs")
    parser.add_argument("--updates", type=int, default=10_000, help="of each RBM")
    parser.add_argument("--lr", type=float, default=0.5, help="of each RBM")
    parser.add_argument("--epochs", type=int, help="180 of up-down, 60 of fine-tuning unless given")
    parser.add_argument("--updown-lr", type=float, default=0.1)
    parser.add_argument("--top-lr", type=float, default=0.2, help="of up-down's top machine")
    parser.add_argument("--chain", type=int, nargs="+", default=[1, 1, 2], help="its Gibbs steps")
    parser.add_argument(
        "--persistent", type=float, default=0.5, help="share of chains that persist"
    )
    parser.add_argument(
        "--discriminative", type=float, default=0.0, help="share of log p(label | pen) at the top"
    )
    parser.add_argument("--tune-lr", type=float, default=0.0005)
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--input-dropout", type=float, default=0.2)
    parser.add_argument("--max-norm", type=float, default=None)
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.1, 0.3, 1.0, 3.0],
                        help="C of logistic regression; validation rows choose")  # fmt: skip
    parser.add_argument("--iterations", type=int, default=500, help="of logistic regression")
    parser.add_argument("--steps", type=int, default=1000, help="Gibbs steps from noise")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    options.hidden = [int(n) for n in options.hidden.split(",")]
    with suppress(BrokenPipeError):
        COMMANDS[options.command](options)


if __name__ == "__main__":
    main()
