"""Recipes: for each kind of model, its units for given data, and settings that work."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from gibbsian import data as datasets
from gibbsian import models
from gibbsian.data import Dataset
from gibbsian.errors import DataError, GibbsianError
from gibbsian.machine import BoltzmannMachine
from gibbsian.units import Bernoulli, Gaussian, Mixed, Softmax, Spin, Units
from gibbsian.units.gaussian import SIGMA_0

Layout = Sequence[tuple[str, int]]


@dataclass(frozen=True)
class Recipe:
    """How a kind of model meets data.

    Attributes
    ----------
    kinds : tuple of str
        Kinds of columns that its visible layer takes.
    images, tables : list of str
        Transforms for image data and for other data, where the user names none.
    build : callable
        From the visible units and the number of hidden units (of a deep model, a list of them) to a machine.
    settings, method : dict
        Defaults of training.
    hidden : tuple of int
        Sizes of the hidden layers where none are named.
    deep : bool
        Whether it takes more than one hidden layer.
    smooth : bool
        Whether images get so much noise that chains cross between them; see `smoothing`.
    """

    kinds: tuple[str, ...]
    images: list[str]
    tables: list[str]
    build: Callable[[Units, Any], BoltzmannMachine]
    settings: Mapping[str, Any] = field(default_factory=dict)
    method: Mapping[str, Any] = field(default_factory=dict)
    hidden: tuple[int, ...] = (500,)
    deep: bool = False
    smooth: bool = False


# Real-valued data vary much more in some directions than in others; without whitening these bound the rate.
_WHITENED = {"whiten": 1.0, "biases": {"1": -1.0}}
# Noise of images of so many pixels that a machine of them can still see what they show, in their standard
# deviations: measured on MNIST, and half of it on images of 64 pixels.
_NOISE, _PIXELS = 0.8, 784

RECIPES: dict[str, Recipe] = {
    "rbm": Recipe(("binary", "spin", "onehot", "real"), ["auto"], ["auto"], models.rbm),
    "gaussian-rbm": Recipe(
        ("real",), ["standardise-global"], ["standardise"], models.gaussian_rbm, _WHITENED,
        {"chains": 200, "refresh": 0.005}, smooth=True,
    ),
    "relu-rbm": Recipe(
        ("real",), ["standardise-global", "dequantise:0.05"], ["standardise"], models.relu_rbm,
        {"lr": 0.03, **_WHITENED}, {"chains": 200, "refresh": 0.001},
    ),
    "softmax-rbm": Recipe(("onehot",), ["threshold", "one-hot"], ["one-hot"], models.rbm),
    "dbm": Recipe(
        ("binary", "spin", "onehot", "real"), ["auto"], ["auto"], models.dbm,
        hidden=(500, 1000), deep=True,
    ),
    "hopfield": Recipe(
        ("binary", "spin"), ["auto"], ["auto"], models.hopfield, {"lr": 0.03}
    ),
}  # fmt: skip

_UNITS: dict[str, Callable[[int], Units]] = {
    "binary": Bernoulli,
    "spin": Spin,
    "onehot": lambda width: Softmax(1, width),
}


def find(name: str, others: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a model's name.

    `others` are names that the caller takes besides, for the sentence that says which are known.

    Raises
    ------
    GibbsianError
        If there is none.
    """
    if name not in RECIPES:
        known = ", ".join([*RECIPES, *others])
        raise GibbsianError(f"There is no model {name!r}; known are {known}.")
    return RECIPES[name]


def settings(recipe: Recipe, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was chosen, and the recipe's settings for the rest.

    Whitening works in centred coordinates, so a recipe's is left out where these were turned off.
    """
    merged = dict(recipe.settings) | dict(chosen)
    if merged.get("center") is False and "whiten" not in chosen:
        merged.pop("whiten", None)
    return merged


def load_data(recipe: Recipe, source: Any, **options: Any) -> Dataset:
    """Load data through the transform that suits the model, unless `options` names one."""
    if options.get("transform") not in (None, "auto"):
        return datasets.load(source, **options)
    options.pop("transform", None)
    dataset = datasets.load(source, transform=_single(recipe.images), **options)
    if dataset.image_shape is None and recipe.tables != recipe.images:
        return datasets.load(source, transform=_single(recipe.tables), **options)
    if dataset.image_shape is not None and recipe.smooth:
        noise = f"dequantise:{smoothing(dataset.n_features):g}"
        return datasets.load(source, transform=[*recipe.images, noise], **options)
    return dataset


def smoothing(pixels: int) -> float:
    """Return the noise to add to images: 0.8 (n/784)^¼ of their standard deviation, and at most 0.8.

    Images of little noise are narrow peaks, between which chains do not cross. The more pixels show the same
    thing, the more noise leaves it to be seen; `gibbsian.noise.remove_noise` takes it off samples.
    """
    return round(_NOISE * min(1.0, pixels / _PIXELS) ** 0.25, 2)


def _single(names: list[str]) -> str | list[str]:
    return names[0] if len(names) == 1 else names


def visible_units(layout: Layout, noise: Tensor | None = None) -> Units:
    """Build the visible layer of columns of these kinds: one family, or several side by side.

    `noise` is the standard deviation of what a transform added to each column: no density of such rows is
    narrower, which bounds the precisions of real ones.
    """
    merged: list[Units] = []
    start = 0
    for kind, width in layout:
        added = 0.0 if noise is None else float(noise[start : start + width].min())
        real = kind == "real"
        unit = Gaussian(width, sigma0=max(added, SIGMA_0)) if real else _UNITS[kind](width)
        start += width
        last = merged[-1].config if merged else {}
        if kind == "onehot" and last.get("categories") == width:
            unit = Softmax(last["groups"] + 1, width)
            merged.pop()
        merged.append(unit)
    return merged[0] if len(merged) == 1 else Mixed(merged)


def build(
    name: str, dataset: Dataset, hidden: int | Sequence[int] | None = None
) -> BoltzmannMachine:
    """Build the machine of a recipe for a data set.

    Parameters
    ----------
    name : str
        Of the recipe.
    dataset : Dataset
    hidden : int or sequence of int, optional
        Sizes of the hidden layers from below; what suits the model unless given.

    Raises
    ------
    GibbsianError
        If a size is impossible, or there are more layers than the model has.
    DataError
        If the data's columns are not of the kind that the model takes.
    """
    recipe = find(name)
    sizes = _sizes(recipe.hidden if hidden is None else hidden)
    if len(sizes) > 1 and not recipe.deep:
        deep = " or ".join(k for k, r in RECIPES.items() if r.deep)
        raise GibbsianError(
            f"The model {name} has one hidden layer, and {len(sizes)} sizes were given; give one number, or "
            f"use the model {deep}."
        )
    wrong = sorted({kind for kind, _ in dataset.layout} - set(recipe.kinds))
    if wrong:
        raise DataError(
            f"The model {name} takes {' or '.join(recipe.kinds)} columns, and the data have {wrong[0]} "
            "ones after their transform; choose another transform or model."
        )
    visible = visible_units(dataset.layout, dataset.transform.noise)
    return recipe.build(visible, sizes if recipe.deep else sizes[0])


def _sizes(hidden: int | Sequence[int]) -> list[int]:
    """Return the sizes of hidden layers as a list of at least one number."""
    sizes = list(hidden) if isinstance(hidden, Sequence) else [hidden]
    if not sizes:
        raise GibbsianError("A machine needs hidden units; give at least one number of them.")
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise GibbsianError(f"The number of hidden units must be at least 1, not {size}.")
    return sizes


__all__ = [
    "RECIPES",
    "Recipe",
    "build",
    "find",
    "load_data",
    "settings",
    "smoothing",
    "visible_units",
]
