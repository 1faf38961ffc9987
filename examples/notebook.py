"""Four generative models of handwritten digits, from first principles to samples.

The course notebook trains a Hopfield model, a restricted Boltzmann machine (RBM), an RBM with sparse
couplings and a deep Boltzmann machine (DBM) on the same binarised digits, and compares what they
reconstruct, dream, repair and look for. This script does the same with gibbsian, and adds the question that
pictures leave open: how likely are digits that nobody trained on, and may the samples be trusted?

    python examples/notebook.py                    # scikit-learn's digits, about two minutes
    python examples/notebook.py mnist 30000        # MNIST, 30,000 updates a model

`gibbsian compare --preset mnist-notebook` is this script as a command, with runs that can be resumed.
"""

import sys
from pathlib import Path
from typing import Any

import torch

import gibbsian as gb
from gibbsian import plots
from gibbsian.repair import reconstruct as restore

HIDDEN = 200  # units of each hidden layer
SHOWN = 8  # digits beside each other
FLIPPED = 0.15  # of the pixels, before denoising


def build(pixels: int, hidden: int) -> dict[str, gb.BoltzmannMachine]:
    """The four models. All are layers of units, joined by couplings; only the units differ.

    In a Hopfield model, hidden units are real numbers: summed out, they leave a quadratic energy of the
    pixels, whose patterns are the couplings of each hidden unit. In an RBM they are bits, and pixels meet in
    all orders. A DBM has a second layer, whose units look for what those of the first have in common.
    """
    return {
        "Hopfield": gb.hopfield(pixels, hidden),
        "RBM": gb.rbm(pixels, hidden),
        "RBM (L1)": gb.rbm(pixels, hidden),
        "DBM": gb.dbm(pixels, [hidden, hidden]),
    }


# What is special about the training of each. An L1 penalty pulls couplings to zero, so that a hidden unit
# looks at few pixels; real-valued hidden units answer more strongly than bits, and want a smaller rate.
SETTINGS: dict[str, dict[str, Any]] = {"Hopfield": {"lr": 0.03}, "RBM (L1)": {"l1": 1e-3}}


def train(
    machines: dict[str, gb.BoltzmannMachine], data: gb.data.Dataset, updates: int
) -> dict[str, gb.Trained]:
    """Train each by persistent contrastive divergence: 100 chains make a step at each update.

    The notebook's Adam is replaced by plain gradient steps in centred coordinates, in which a DBM needs no
    layer-wise pre-training.
    """
    trained = {}
    for name, machine in machines.items():
        method = gb.PCD(steps=1, chains=100)
        settings = SETTINGS.get(name, {})
        trained[name] = gb.train(
            machine,
            data,
            method,
            updates=updates,
            log_every=max(1, updates // 10),
            seed=137,
            progress=False,
            **settings,
        )
        print(f"trained {name}: {' – '.join(map(str, machine.sizes))} units")
    return trained


def reconstruct(trained: dict[str, gb.Trained], digits: torch.Tensor) -> dict[str, torch.Tensor]:
    """What each model expects to see, given the means of its hidden units given the digits.

    With one hidden layer that is a pass up and a pass down. In a DBM each hidden layer also hears from the
    one above, so the means are found by a few sweeps of mean field.
    """
    return {name: restore(run.machine, digits) for name, run in trained.items()}


def dream(trained: dict[str, gb.Trained], steps: int) -> dict[str, torch.Tensor]:
    """Fantasy particles: states of chains that start at noise.

    Couplings are scaled by a random inverse temperature of mean 1, at first wide, so that chains cross
    barriers, and annealed to exactly 1.
    """
    found = {}
    for name, run in trained.items():
        drive = gb.Driven(std=0.6, momentum=0.9, steps=steps * 4 // 5)
        found[name] = gb.sample(run.machine, SHOWN, steps, sampler=drive, generator=137).samples
    return found


def denoise(
    trained: dict[str, gb.Trained], digits: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Flip pixels, let each model take them back, and print the share of pixels that are wrong."""
    source = torch.Generator().manual_seed(137)
    flipped = torch.rand(digits.shape, generator=source) < FLIPPED
    noisy = torch.where(flipped, 1 - digits, digits)
    restored = reconstruct(trained, noisy)
    print(f"wrong pixels: {float((noisy != digits).float().mean()):.1%} before")
    for name, rows in restored.items():
        print(f"  {name:9} {float(((rows > 0.5) != (digits > 0.5)).float().mean()):.1%}")
    return noisy, restored


def judge(trained: dict[str, gb.Trained], **sizes: Any) -> None:
    """Both bounds on the likelihood of test digits, and whether samples from noise can be trusted."""
    for name, run in trained.items():
        found = gb.evaluate(run, **sizes)
        likelihood = found.splits["test"].log_likelihood
        if likelihood is not None:
            bounds = likelihood.as_dict()
            print(
                f"{name}: between {bounds['reverse_ais']:.1f} and {bounds['ais']:.1f} nats a digit"
            )
        if found.certificate is not None:
            print(f"  {found.certificate.words[0]}")


def main(
    source: str = "digits", updates: int = 5_000, hidden: int = HIDDEN, steps: int = 1_000,
    out: str | Path = "notebook", **sizes: Any,
) -> dict[str, gb.Trained]:  # fmt: skip
    """Tell the whole story, and leave its pictures in the folder `out`."""
    out = Path(out)
    data = gb.data.load(source, transform="threshold")
    shape = data.image_shape
    assert data.test is not None and shape is not None
    digits = data.test.tensor(limit=500)
    few = digits[:SHOWN]

    trained = train(build(data.n_features, hidden), data, updates)

    def draw(name: str, stacks: dict[str, torch.Tensor]) -> None:
        plots.save(plots.labelled(stacks, shape), out / f"{name}.png")

    draw("reconstructions", {"Data": few, **reconstruct(trained, few)})
    draw("fantasies", dream(trained, steps))
    noisy, restored = denoise(trained, digits)
    shown = {name: rows[:SHOWN] for name, rows in restored.items()}
    draw("denoising", {"Data": few, "Noisy": noisy[:SHOWN], **shown})
    for name, run in trained.items():
        weights = run.machine.joints[0].weight.detach().T
        plots.save(plots.filters(weights, shape, most=25), out / f"features {name}.png")
    judge(trained, **sizes)
    return trained


if __name__ == "__main__":
    given = sys.argv[1:]
    main(given[0] if given else "digits", int(given[1]) if len(given) > 1 else 5_000)
