"""What a Gibbs sweep and a PCD-1 update cost, as ratios to their bare matrix products in one run.

    make bench            or    .venv/bin/python benchmarks/run.py [--threads N] [--out FILE.json]

Sizes are MNIST's (784 visible, 500 hidden units); the rows are random bits, so no data set is needed.
Ratios are medians over rounds in which the bare products and our code take turns.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import gibbsian as gb
from gibbsian.samplers import Gibbs, run

VISIBLE, HIDDEN, BATCH, CHAINS = 784, 500, 100, 1000


def seconds(work: Callable[[], object]) -> float:
    """Time one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def alternate(
    ours: Callable[[], object], bare: Callable[[], object], rounds: int
) -> dict[str, float]:
    """Time both in turns; return medians in milliseconds and the median of the ratios."""
    ours(), bare()
    pairs = [(seconds(ours), seconds(bare)) for _ in range(rounds)]
    return {
        "ours_ms": 1e3 * statistics.median(a for a, _ in pairs),
        "bare_ms": 1e3 * statistics.median(b for _, b in pairs),
        "ratio": statistics.median(a / b for a, b in pairs),
    }


def sweep(rounds: int) -> dict[str, float]:
    """One Gibbs sweep of 1,000 chains against its two products."""
    machine = gb.rbm(VISIBLE, HIDDEN)
    weight = machine.joints[0].weight.detach().normal_(0, 0.05)
    generator = torch.Generator().manual_seed(0)
    sampler = Gibbs()
    state = sampler.init(machine, gb.samplers.start(machine, CHAINS, "noise", generator), generator)
    v, h = state.layers
    found = alternate(
        lambda: run(sampler, machine, state, 10, generator),
        lambda: [(h @ weight.T, v @ weight) for _ in range(10)],
        rounds,
    )
    found["flips_per_ns"] = 10 * CHAINS * (VISIBLE + HIDDEN) / (found["ours_ms"] * 1e6)
    return found


def update(rounds: int) -> dict[str, float]:
    """PCD-1 updates at batch 100, plain SGD, as `gb.train` runs them, against five products each."""
    rows = torch.randint(0, 2, (6000, VISIBLE), generator=torch.Generator().manual_seed(0)).float()
    data = gb.data.load(rows, transform="identity")
    settings = gb.Settings(updates=10**6, log_every=10**6, schedule="constant")
    trainer = gb.training.Trainer(gb.rbm(VISIBLE, HIDDEN), data, gb.PCD(), settings)
    v, h = rows[:BATCH], torch.rand(BATCH, HIDDEN)
    weight = torch.randn(VISIBLE, HIDDEN)
    return alternate(
        trainer.advance,
        lambda: [
            (v @ weight, h @ weight.T, v @ weight, v.T @ h, v.T @ h)
            for _ in range(trainer.epoch_length)
        ],
        rounds,
    )


def main() -> None:
    """Measure, print, and write a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = {
        "threads": options.threads,
        "sweep": sweep(options.rounds),
        "epoch": update(options.rounds),
    }
    for name in ("sweep", "epoch"):
        row = found[name]
        times = f"ours {row['ours_ms']:8.1f} ms  bare {row['bare_ms']:8.1f} ms"
        print(f"{name:6s} {times}  ratio {row['ratio']:.2f}")
    print(f"sweep  {found['sweep']['flips_per_ns']:.3f} flips/ns")
    options.out.write_text(json.dumps(found, indent=1))
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
