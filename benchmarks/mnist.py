"""The MNIST figures: likelihood of the default recipe, fours from noise, long chains, bfloat16.

    GIBBSIAN_DATA=DIR .venv/bin/python -m benchmarks.mnist rbm --updates 23000 --out runs/rbm-23k
    GIBBSIAN_DATA=DIR .venv/bin/python -m benchmarks.mnist fours --out runs/fours
    GIBBSIAN_DATA=DIR .venv/bin/python -m benchmarks.mnist sweeps
    GIBBSIAN_DATA=DIR .venv/bin/python -m benchmarks.mnist precision --updates 3000 --seeds 5

Runs are resumed where they stopped, and only evaluated where they are finished.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import gibbsian as gb
from gibbsian import recipes
from gibbsian.repair import reconstruct
from gibbsian.report import report
from gibbsian.samplers import Gibbs

STEPS = (10, 100, 400, 1_000, 5_000)


def trained(options: argparse.Namespace, model: str, hidden: int, **load: object) -> gb.Trained:
    """Train by the recipe of a model, or go on with the run that is there."""
    begin = time.perf_counter()
    if (options.out / "config.toml").is_file():
        result = gb.resume(options.out)
    else:
        recipe = recipes.find(model)
        data = recipes.load_data(recipe, "mnist", **load)
        machine = recipes.build(model, data, hidden)
        settings = dict(recipe.settings) | {"updates": options.updates, "seed": options.seed}
        result = gb.train(machine, data, gb.PCD(**recipe.method), out=options.out, **settings)
    print(f"{result.step} updates; {(time.perf_counter() - begin) / 60:.1f} minutes in this call")
    return result


def rbm(options: argparse.Namespace) -> None:
    """Print both bounds on the test log-likelihood, and the report's verdict."""
    result = trained(options, "rbm", 500)
    made = report(result, temperatures=options.temperatures, mixing_steps=10_000)
    for name, split in made.evaluation.splits.items():
        if split.log_likelihood is not None:
            found = split.log_likelihood.as_dict()
            numbers = {k: round(v, 2) for k, v in found.items() if isinstance(v, float)}
            print(name, numbers)
    print(made.verdict.status, "-", made.verdict.headline)
    for finding in made.verdict.findings:
        print(" ", finding.ok, finding.text)


def classifier(rows: Tensor, labels: Tensor, seed: int) -> nn.Module:
    """Fit a small network to binarised digits."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 10))
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(8):
        for index in torch.randperm(len(rows)).split(100):
            loss = nn.functional.cross_entropy(net(rows[index]), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval()


def fours(options: argparse.Namespace) -> None:
    """Print how many samples of a machine of fours a classifier calls a four, step by step."""
    result = trained(options, "gaussian-rbm", 500, classes=[4])
    digits = gb.data.load("mnist", transform=["scale", "threshold:0.5"])
    net = classifier(digits.train.tensor(), torch.from_numpy(digits.train.labels), options.seed)
    test = digits.test.tensor()
    with torch.no_grad():
        right = (net(test).argmax(1) == torch.from_numpy(digits.test.labels)).float().mean()
    print(f"classifier: {100 * right:.2f} % of real test digits")
    machine, data = result.machine, result.data
    train, held = data.train.tensor(), data.test.tensor()
    generator = torch.Generator().manual_seed(options.seed + 1)
    sampler = Gibbs()
    state = sampler.init(machine, gb.samplers.start(machine, 1000, "noise", generator), generator)
    done = 0
    for steps in STEPS:
        state, _ = gb.samplers.run(sampler, machine, state, steps - done, generator)
        done = steps
        x = state.layers[0]
        grey = torch.from_numpy(data.to_images(x)).reshape(len(x), -1).float()
        with torch.no_grad():
            called = (net((grey > 0.5).float()).argmax(1) == 4).float().mean()
        near, real = (torch.cdist(a, train).min(1).values.mean() for a in (x, held))
        print(
            f"{steps:5d} steps: {100 * called:5.1f} % called a four; nearest training row "
            f"{near:.2f} away (real held-out fours {real:.2f})"
        )
    for name, x in (("train", train), ("test", held)):
        error = float(((reconstruct(machine, x) - x) ** 2).mean())
        print(f"reconstruction error, {name} rows: {error:.4f} (standardised grey levels, squared)")
    made = report(result, temperatures=options.temperatures, mixing_steps=5_000)
    print(made.verdict.status, "-", made.verdict.headline, made.page)


def sweeps(options: argparse.Namespace) -> None:
    """Print the cost of a sweep within CD-k for growing k: it must not grow."""
    machine = gb.rbm(784, 500)
    machine.joints[0].weight.data.normal_(0, 0.01)
    x = (torch.rand(100, 784) < 0.2).float()
    generator = torch.Generator().manual_seed(0)
    for k in (1, 10, 100, 1000, 5000):
        method, repeats = gb.CD(steps=k), max(1, 2000 // k)
        begin = time.perf_counter()
        for _ in range(repeats):
            method.step(machine, x, None, generator)
        each = (time.perf_counter() - begin) / repeats
        print(f"CD-{k}: {1e3 * each:.2f} ms an update, {1e3 * each / k:.3f} ms a sweep")


def precision(options: argparse.Namespace) -> None:
    """Print what training in bfloat16 costs in test log-likelihood, paired over seeds."""
    recipe = recipes.find("rbm")
    data = recipes.load_data(recipe, "mnist")
    test = data.test.tensor()
    differences = []
    for seed in range(options.seeds):
        found = {}
        for name in ("fp32", "bf16"):
            begin = time.perf_counter()
            settings = dict(recipe.settings) | {"updates": options.updates, "seed": seed}
            result = gb.train(
                recipes.build("rbm", data, 500), data, gb.PCD(**recipe.method),
                precision=name, **settings,
            )  # fmt: skip
            start = gb.path.reference(result.machine, data.train.tensor())
            z = gb.evaluators.ais(result.machine, start, 200, options.temperatures, generator=seed)
            with torch.no_grad():
                found[name] = float(-result.machine.free_energy(test).mean()) - z.log_z
            print(
                f"seed {seed} {name}: test {found[name]:.3f} nats (log Z ± {z.standard_error:.3f}, "
                f"ESS {z.ess:.0f}), {time.perf_counter() - begin:.0f} s", flush=True,
            )  # fmt: skip
        differences.append(found["bf16"] - found["fp32"])
    gaps = torch.tensor(differences)
    error = float(gaps.std()) / len(gaps) ** 0.5
    print(f"bf16 − fp32: {gaps.tolist()}, mean {float(gaps.mean()):+.3f} ± {error:.3f} nats")


def main() -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("rbm", "fours", "sweeps", "precision"))
    parser.add_argument("--updates", type=int, default=23_000)
    parser.add_argument("--temperatures", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/mnist"))
    options = parser.parse_args()
    commands = {"rbm": rbm, "fours": fours, "sweeps": sweeps, "precision": precision}
    commands[options.what](options)


if __name__ == "__main__":
    main()
