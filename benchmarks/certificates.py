"""What a certificate costs beside the training of what it certifies, in seconds of the processor.

    GIBBSIAN_DATA=DIR .venv/bin/python -m benchmarks.certificates --updates 20000 --out runs/certificates

Three machines of Bernoulli units by their default recipe: scikit-learn's digits (500 hidden units, 6,000
updates), bars and stripes (30, 6,000) and MNIST (500, --updates). The certificate has its default length, the
report too, which has chains, both likelihood bounds and pictures of its own. One thread. What is measured
is kept in ``results.json``, and only what is missing is done.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

import gibbsian as gb
from benchmarks.budget import Clock, Stopwatch
from gibbsian import recipes
from gibbsian.report import report
from gibbsian.settings import DEFAULT_UPDATES

RUNS = {"digits": 500, "bars-and-stripes": 30, "mnist": 500}


def measure(name: str, updates: int, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train, certify and report on one data set."""
    trained, training = _trained(name, updates, out)
    watch = Stopwatch()
    made = gb.certify(
        trained, chains=options.chains, steps=options.steps, drift_steps=options.steps // 2
    )
    certificate = watch.seconds()
    watch = Stopwatch()
    verdict = report(
        trained, chains=options.chains, temperatures=options.temperatures,
        mixing_steps=options.steps // 2,
    ).verdict  # fmt: skip
    found = {"training": training, "certificate": certificate, "report": watch.seconds()}
    ratios = {f"{k}_over_training": found[k] / training for k in ("certificate", "report")}
    return found | ratios | {
        "updates": trained.step, "granted": made.granted, "words": made.words,
        "report_says": verdict.headline,
    }  # fmt: skip


def _trained(name: str, updates: int, out: Path) -> tuple[gb.Trained, float]:
    """Train a machine, go on with it, or open it; return the seconds that its updates took."""
    clock, told = Clock(), out / "seconds.json"
    if told.is_file():
        return gb.load(out), json.loads(told.read_text())["seconds"]
    if (out / "config.toml").is_file():
        trained = gb.resume(out, callbacks=[clock], progress=False)
    else:
        data = recipes.load_data(recipes.find("rbm"), name)
        machine = recipes.build("rbm", data, RUNS[name])
        trained = gb.train(
            machine, data, out=out, updates=updates, threads=1, callbacks=[clock], progress=False
        )
    told.write_text(json.dumps({"seconds": clock.seconds}))
    return trained, clock.seconds


def table(found: dict[str, Any]) -> str:
    """Write the results as a table."""
    lines = [
        "| data | updates | training, CPU s | certificate | report | certificate ÷ training | "
        "report ÷ training | granted |",
        "|---" * 8 + "|",
    ]
    for name, r in found.items():
        lines.append(
            f"| {name} | {r['updates']} | {r['training']:.1f} | {r['certificate']:.1f} | "
            f"{r['report']:.1f} | {r['certificate_over_training']:.2f} | "
            f"{r['report_over_training']:.2f} | {'yes' if r['granted'] else 'no'} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure all three, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=tuple(RUNS), default=tuple(RUNS))
    parser.add_argument("--updates", type=int, default=20_000, help="of MNIST")
    parser.add_argument("--small-updates", type=int, default=DEFAULT_UPDATES, help="of the others")
    parser.add_argument("--chains", type=int, default=100)
    parser.add_argument("--steps", type=int, default=20_000, help="of the certificate")
    parser.add_argument("--temperatures", type=int, default=10_000, help="of the report")
    parser.add_argument("--out", type=Path, default=Path("runs/certificates"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept = options.out / "results.json"
    found = json.loads(kept.read_text()) if kept.is_file() else {}
    for name in options.only:
        if name not in found:
            updates = options.updates if name == "mnist" else options.small_updates
            found[name] = measure(name, updates, options.out / name, options)
            kept.write_text(json.dumps(found, indent=1))
            (options.out / "table.md").write_text(table(found))
    print(table(found))


if __name__ == "__main__":
    main()
