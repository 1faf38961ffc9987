"""The data sets that are known by name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gibbsian.data import generated
from gibbsian.data.cifar import CLASSES, IMAGE_SHAPE, read_cifar10
from gibbsian.data.download import fetch
from gibbsian.data.files import array_source
from gibbsian.data.idx import read_idx
from gibbsian.data.source import Source
from gibbsian.errors import DataError

_PARTS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
# Where the four .gz files are published, and their md5 in the order of _PARTS.
_IDX_SETS: dict[str, tuple[str, tuple[str, str, str, str]]] = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        (
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
    ),
    "fashion-mnist": (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        (
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
    ),
}
_CIFAR = (
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c32a1d4ab5d03f1284b67883e8d87530",
)
_GARMENTS = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_GENERATED: dict[str, tuple[Callable[..., np.ndarray], dict[str, float]]] = {
    "bars-and-stripes": (generated.bars_and_stripes, {"n": 4, "rows": 2000, "seed": 0}),
    "ising2d": (generated.ising2d, {"L": 8, "T": 2.5, "rows": 2000, "seed": 0, "sweeps": 50}),
}


def names() -> list[str]:
    """The names that ``load`` knows.

    "digits" (1797 images of 8 x 8, with scikit-learn), "mnist", "fashion-mnist" and "cifar10" (read
    from a folder, or downloaded), "bars-and-stripes" and "ising2d" (generated, with parameters
    after a colon: "ising2d:L=8,T=2.5,rows=2000,seed=0").
    """
    return ["digits", *_IDX_SETS, "cifar10", *_GENERATED]


def is_generated(text: str) -> bool:
    """Whether a known data set is drawn by a formula, and not read."""
    return text.partition(":")[0] in _GENERATED


def is_named(text: str) -> bool:
    """Whether ``text`` is a known name, perhaps with parameters."""
    return text.partition(":")[0] in names()


def unknown_name(text: str) -> DataError:
    """The error for a text that is neither a name nor a file."""
    close = difflib.get_close_matches(text.partition(":")[0], names(), 1)
    hint = f"did you mean '{close[0]}'? T" if close else "t"
    return DataError(
        f"'{text}' is neither a data set nor a file: {hint}he data sets are {', '.join(names())}."
    )


def read_named(text: str, data_dir: str | os.PathLike[str] | None) -> Source:
    """The source called ``text``.

    Raises
    ------
    DataError
        For wrong parameters, files that are missing or damaged, or a failed download.
    """
    name, _, parameters = text.partition(":")
    if name in _GENERATED:
        make, defaults = _GENERATED[name]
        return array_source(make(**_parameters(name, parameters, defaults)), text)
    if parameters:
        raise DataError(f"the data set '{name}' takes no parameters, and got '{parameters}'.")
    if name == "digits":
        return _digits()
    root = data_dir or os.environ.get("GIBBSIAN_DATA") or None
    folder = None if root is None else Path(root)
    if folder is not None and not folder.is_dir():
        raise DataError(
            f"the data folder {folder} does not exist: check GIBBSIAN_DATA or --data-dir."
        )
    return _cifar10(folder) if name == "cifar10" else _idx_set(name, folder)


def _parameters(name: str, text: str, defaults: dict[str, float]) -> dict[str, Any]:
    """Text such as "L=8,T=2.5" over ``defaults``, each value of its default's type."""
    values: dict[str, Any] = dict(defaults)
    for item in filter(None, text.split(",")):
        key, _, value = (part.strip() for part in item.partition("="))
        if key not in defaults:
            raise DataError(
                f"the data set '{name}' has no parameter '{key}': write it as '{name}:"
                + ",".join(f"{k}={v}" for k, v in defaults.items())
                + "'."
            )
        try:
            values[key] = type(defaults[key])(value)
        except ValueError as error:
            raise DataError(
                f"'{value}' is no value for {key} of '{name}': give a number."
            ) from error
    return values


def _digits() -> Source:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    # Levels 0 … 16 become multiples of 1/16, exact in float32.
    images = (bunch.images / 16).astype(np.float32)
    source = array_source(images, "digits")
    source.labels = bunch.target.astype(np.int64)
    return source


def _find(folder: Path, choices: list[str]) -> Path:
    for choice in choices:
        if (folder / choice).exists():
            return folder / choice
    raise DataError(
        f"the data folder {folder} holds no {' or '.join(choices)}: put it there, or unset "
        "GIBBSIAN_DATA and --data-dir to download it."
    )


def _idx_set(name: str, folder: Path | None) -> Source:
    url, sums = _IDX_SETS[name]
    if folder is None:
        paths = [fetch(f"{url}{p}.gz", md5, name) for p, md5 in zip(_PARTS, sums, strict=True)]
    else:
        paths = [_find(folder, [f"{name}/{p}.gz", f"{name}/{p}"]) for p in _PARTS]
    arrays = [read_idx(path) for path in paths]
    names = _GARMENTS if name == "fashion-mnist" else None
    return _with_test(name, *arrays, names=names)


def _cifar10(folder: Path | None) -> Source:
    if folder is None:
        path = fetch(*_CIFAR, "cifar10")
    else:
        path = _find(folder, ["cifar-10-binary.tar.gz", "cifar-10-batches-bin"])
    source = _with_test("cifar10", *read_cifar10(path), names=CLASSES)
    assert source.test is not None
    source.shape = source.test.shape = IMAGE_SHAPE
    return source


def _with_test(name: str, *arrays: np.ndarray, names: tuple[str, ...] | None = None) -> Source:
    """Train and test sources from train images, train labels, test images and test labels."""
    train, test = array_source(arrays[0], name), array_source(arrays[2], f"the test part of {name}")
    train.labels, test.labels = arrays[1], arrays[3]
    train.label_names = test.label_names = names
    train.test = test
    return train
