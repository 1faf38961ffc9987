"""A deep belief network on handwritten digits, from the first RBM to a classifier.

    python examples/deep_belief.py
    python examples/deep_belief.py --data mnist --hidden 500,500,2000 --updates 60000 --out runs/belief

The way of Hinton, Osindero and Teh (2006), step by step:

1. one RBM after the other, each on what the one below makes of the data;
2. the labels join the last of them, which becomes the associative memory on top;
3. the weights are untied, and wake-sleep trains both directions: up to infer, down to generate;
4. the network dreams: a class is held, the memory settles, and one pass down draws the picture;
5. it classifies, by the free energy of each label; and
6. backpropagation turns the upward weights into an ordinary feed-forward classifier.
"""

import argparse
from pathlib import Path

import torch

import gibbsian as gb
from gibbsian import belief, plots
from gibbsian.belief import classifier, finetune, greedy, updown
from gibbsian.belief.beside import classes_of
from gibbsian.data import Dataset


def error(found: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the percentage of rows with a wrong label."""
    return 100 * float((found != labels).double().mean())


def pretrain(data: Dataset, hidden: list[int], updates: int) -> belief.DeepBeliefNetwork:
    """Train the stack of RBMs, the labels beside the visible layer of the last, and untie it."""
    classes = classes_of(data)
    machines = greedy.machines(gb.Bernoulli(data.n_features), hidden, classes)
    trained = greedy.greedy(
        machines, data, classes=classes, updates=updates, progress=False, tell=print
    )
    return belief.stack([layer.machine for layer in trained], classes)


def wake_sleep(
    network: belief.DeepBeliefNetwork, data: Dataset, epochs: int, batch: int
) -> belief.DeepBeliefNetwork:
    """Train both directions by the up-down algorithm, and return the average over the last updates."""
    stage = updown.UpDown(
        network, data, updown.Settings(epochs=epochs, batch_size=batch, lr=0.2, momentum=0.5)
    )
    stage.fit()
    return stage.averaged


def dream(network: belief.DeepBeliefNetwork, data: Dataset, steps: int, file: Path) -> None:
    """Draw ten of each class from noise: samples of the pixels are shown by their means."""
    labels = [c for c in network.classes for _ in range(10)]
    made = network.generate(len(labels), steps, label=labels)
    pictures = data.to_images(made.means)
    plots.save_images(pictures.reshape(len(pictures), -1), pictures.shape[1:], file)


def main(
    data: str = "digits", hidden: tuple[int, ...] = (100, 100, 300), updates: int = 4000,
    epochs: int = 60, batch: int = 20, steps: int = 500, out: str = "runs/deep-belief",
) -> dict[str, float]:  # fmt: skip
    """Go all the way, and return the percentages of misclassified test rows."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    # Grey levels are taken as the probabilities of a 1.
    dataset = gb.data.load(data, transform="scale")
    assert dataset.test is not None
    x, labels = dataset.test.tensor(), torch.as_tensor(dataset.test.labels)
    errors = {}

    network = pretrain(dataset, list(hidden), updates)
    errors["stack"] = error(network.classify(x), labels)
    network = wake_sleep(network, dataset, epochs, batch)
    errors["up-down"] = error(network.classify(x), labels)
    dream(network, dataset, steps, folder / "dreams.png")

    model = classifier.classifier(network, dropout=0.2)
    stage = finetune.FineTune(model, dataset, finetune.Settings(epochs=epochs, batch_size=batch))
    stage.fit()
    errors["backpropagation"] = error(stage.best.classify(x), labels)
    classifier.save(stage.best, folder / "classifier.safetensors")

    for name, value in errors.items():
        print(f"{name}: {value:.2f} % of {len(x):,} test rows misclassified")
    print(f"Ten dreams of each class, from noise: {folder / 'dreams.png'}")
    return errors


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--hidden", default="100,100,300")
    parser.add_argument("--updates", type=int, default=4000, help="of each RBM")
    parser.add_argument("--epochs", type=int, default=60, help="of up-down and fine-tuning")
    parser.add_argument("--batch", type=int, default=20, help="rows an update of these")
    parser.add_argument("--steps", type=int, default=500, help="Gibbs steps of a dream")
    parser.add_argument("--out", default="runs/deep-belief")
    given = vars(parser.parse_args())
    main(**(given | {"hidden": tuple(int(n) for n in given["hidden"].split(","))}))
