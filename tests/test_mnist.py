"""The two cases that other packages' users could not get to work, on real MNIST.

The slow tests want GIBBSIAN_DATA and take minutes each; the same code runs every day on small digits.
"""

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

import gibbsian as gb
from gibbsian import recipes

FOUR = 4
MID_GREY = 0.5


# A likelihood to believe.


def likelihoods(
    data: gb.data.Dataset, hidden: int, updates: int, temperatures: int, mixing_steps: int
) -> dict[str, dict]:
    """Train by the default recipe; return the likelihood of validation and test rows, both ways."""
    result = gb.train(
        gb.rbm(data.n_features, hidden), data, updates=updates, seed=0, progress=False
    )
    found = gb.evaluate(
        result, chains=100, temperatures=temperatures, mixing_steps=mixing_steps, seed=0
    )
    numbers = {k: found.splits[k].log_likelihood for k in ("validation", "test")}
    return {k: n.as_dict() for k, n in numbers.items() if n is not None}


@pytest.mark.slow
def test_default_recipe_reaches_the_likelihood_by_ais_and_by_reverse_ais_from_noise(data_dir):
    data = gb.data.load("mnist", data_dir=data_dir)
    assert data.transform.names == ["stochastic-binarise"]
    for split, found in likelihoods(data, 500, 23_000, 10_000, 5_000).items():
        assert found["ais"] > -87.5, split
        assert found["reverse_ais_noise"] > -87.5, split
        assert found["reverse_ais_data"] > -87.5, split


def test_the_same_on_small_digits():
    found = likelihoods(gb.data.load("digits"), 20, 1_500, 60, 50)
    assert set(found) == {"validation", "test"}
    for numbers in found.values():
        assert -64 < numbers["reverse_ais_noise"] < numbers["ais"] + 0.5 < 0
        assert numbers["ais"] > -26  # independent bits of the same means have −27


# One class in grey levels, from noise.


def bits(data: gb.data.Dataset, x: Tensor) -> Tensor:
    """Bring rows of a machine back to grey levels, and binarise them at mid-grey."""
    grey = data.to_images(x).reshape(len(x), -1)
    return torch.from_numpy((grey > MID_GREY).astype(np.float32))


def fit_classifier(data: gb.data.Dataset, epochs: int) -> nn.Module:
    """Fit a small network to binarised rows of all classes."""
    x, y = data.train.tensor(), torch.from_numpy(data.train.labels)
    generator = Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(x.shape[1], 256), nn.ReLU(), nn.Linear(256, 10))
    for p in net.parameters():
        nn.init.normal_(p, std=0.05, generator=generator)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=generator).split(100):
            loss = nn.functional.cross_entropy(net(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net


def share_of_fours(net: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return float((net(x).argmax(dim=1) == FOUR).float().mean())


def to_nearest(x: Tensor, rows: Tensor) -> float:
    """Return the mean distance of each of `x` to the nearest row."""
    return float(torch.cdist(x, rows).amin(dim=1).mean())


def fours(source: str, data_dir, hidden: int, updates: int, epochs: int) -> dict[str, float]:
    """Train on grey fours by the recipe, sample from noise, and have a classifier look."""
    recipe = recipes.find("gaussian-rbm")
    data = recipes.load_data(recipe, source, classes=FOUR, data_dir=data_dir)
    machine = recipes.build("gaussian-rbm", data, hidden)
    options = dict(recipe.settings) | {"updates": updates, "seed": 0, "progress": False}
    result = gb.train(machine, data, gb.PCD(**recipe.method), **options)
    found = gb.sample(result.machine, 1000, 400, start="noise", generator=1, record=[0, 100, 400])
    assert found.trace is not None
    net = fit_classifier(gb.data.load(source, data_dir=data_dir, transform="threshold"), epochs)
    train, held = data.train.tensor(), data.test.tensor()
    # Images without the noise that the recipe gives them, and samples that lost it.
    plain, fresh = (bits(data, p.tensor(noisy=False)) for p in (data.train, data.test))
    clean = {
        step: bits(data, gb.remove_noise(result, x))
        for step, x in zip(found.at, found.trace, strict=True)
    }
    shares = {f"fours at {step}": share_of_fours(net, x) for step, x in clean.items()}
    return shares | {
        "fours among real ones": share_of_fours(net, fresh),
        "samples to train": to_nearest(found.samples, train),
        "held to train": to_nearest(held, train),
        "bits of samples to train": to_nearest(clean[400], plain),
        # Means of what may lie behind a row are smoother than images, so held-out rows are cleaned as well.
        "bits of held to train": to_nearest(bits(data, gb.remove_noise(result, held)), plain),
    }


@pytest.mark.slow
def test_fours_from_noise_are_fours_and_no_copies(data_dir):
    found = fours("mnist", data_dir, 500, 8_000, epochs=8)
    print(found)
    assert found["fours among real ones"] > 0.96  # the classifier knows a four
    assert found["fours at 0"] < 0.5  # and does not see one in noise
    assert found["fours at 100"] >= 0.95
    assert found["fours at 400"] >= 0.95
    assert found["samples to train"] >= found["held to train"]
    # Copies would lie at 0; the mean of 982 held-out rows is known to 2 % or so.
    assert found["bits of samples to train"] >= 0.95 * found["bits of held to train"]


def test_the_same_for_small_fours():
    found = fours("digits", None, 20, 300, epochs=20)
    assert found["fours among real ones"] > 0.85  # of 18
    assert found["fours at 400"] > found["fours at 0"] + 0.2
    assert all(np.isfinite(v) and v >= 0 for v in found.values())
