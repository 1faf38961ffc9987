"""``load``: from a name, a file or an array to a Dataset."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gibbsian.data.dataset import Dataset, Split
from gibbsian.data.files import array_source, outside, read_file
from gibbsian.data.named import is_generated, is_named, read_named, unknown_name
from gibbsian.data.rows import check_finite
from gibbsian.data.rows import fingerprint as rows_fingerprint
from gibbsian.data.source import Source, check_weights, encode_labels, select_classes
from gibbsian.data.splits import split_rows
from gibbsian.data.transforms import Transform, automatic, raw_columns
from gibbsian.errors import DataError

ARRAY = "array"  # stands in a spec for what was passed in memory


def load(
    source: Any,
    *,
    key: str | None = None,
    labels: Any = None,
    classes: int | str | Iterable[int | str] | None = None,
    limit: int | None = None,
    transform: str | Sequence[str] = "auto",
    validation: Any = None,
    test: Any = None,
    seed: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
    image_shape: Sequence[int] | None = None,
    weights: Any = None,
    in_memory: bool | None = None,
    fingerprint: str | None = None,
) -> Dataset:
    """Load a data set: split it, fit its transform on the train rows, and describe it in ``spec``.

    Parameters
    ----------
    source : a name (see ``names``), a path (.npy, .npz, .csv, .parquet, .h5, or IDX, plain or
        gzipped), an array or tensor (rows, …) that is not copied, or a Dataset, which is returned
        as it is.
    key : which array of an .npz or HDF5 file.
    labels, weights : one value for each row: a column of a table, a key of an .npz or HDF5 file,
        the path of a file of their own, or an array.
    classes : keep only rows with these labels (numbers or names), in every part.
    limit : keep at most so many train rows; the split is made before.
    transform : names of steps (``Transform.parse``), or "auto": bits and spins as they are; uint8
        and values in [0, 1] stochastically binarised; tables one-hot for text, standardised for
        real columns; other arrays standardised.
    validation, test : a share of the rows (a fraction below 1, a count, or 0 for none), counted
        before ``classes``; or another source, a path or an array. By default 0.1 each; 0.05 for
        validation if the test rows are a part of their own.
    seed : of the split, which depends on it and on the number of rows alone.
    data_dir : folder of the named sets (else the environment's GIBBSIAN_DATA, else a download).
    image_shape : shape of one row as an image, if the source doesn't tell.
    in_memory : whether .npy, HDF5 and Parquet rows are held in memory; None: up to 1 GiB.
    fingerprint : that of the expected data, as stored in ``spec``.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        For data that can't be used; the sentence says why and what to do.
    """
    if isinstance(source, Dataset):
        return source
    options = {"key": key, "labels": labels, "weights": weights}
    given = {"validation": validation, "test": test}
    _refuse_placeholders({"rows": source, "labels": labels, "weights": weights} | given)
    main = _read(source, options, data_dir, None, in_memory)
    others = _other_parts(main, given, options, in_memory)
    found = _checked(main, others)
    if fingerprint is not None and fingerprint != found:
        raise DataError(
            f"{main.what} is not what it was when its fingerprint was stored ({fingerprint[:12]}… "
            f"then, {found[:12]}… now): bring back the old data, or load without the fingerprint."
        )
    shares = _shares(main, others, given)
    index = split_rows(main.rows.length, int(seed), **shares)
    index |= {role: np.arange(part.rows.length) for role, part in others.items()}
    parts = {role: others.get(role, main) for role in index}
    chosen = _listed(classes)
    index = _restrict(parts, index, chosen, limit)
    shape = _image_shape(main, image_shape)
    fitted = _fit(main, index["train"], transform)
    splits = {
        role: Split(part.rows, index[role], part.labels, part.weights, fitted)
        if len(index[role])
        else None
        for role, part in parts.items()
    }
    spec = {
        "source": _stored(source, ()),
        "key": key,
        "labels": _stored(labels, main.inside),
        "classes": chosen,
        "limit": limit,
        "transform": fitted.names,
        "seed": int(seed),
        "data_dir": None if data_dir is None else str(Path(data_dir).resolve()),
        "image_shape": None if image_shape is None else list(shape or ()),
        "weights": _stored(weights, main.inside),
        "in_memory": in_memory,
        "fingerprint": found,
    }
    spec |= {role: shares.get(role, _stored(value, ())) for role, value in given.items()}
    spec = {name: value for name, value in spec.items() if value is not None}
    return Dataset(main.what, splits, fitted, shape, main.label_names, spec)


def _listed(classes: int | str | Iterable[int | str] | None) -> list[int | str] | None:
    """``classes`` as a list of plain integers and strings."""
    if classes is None:
        return None
    several = [classes] if isinstance(classes, int | str) else classes
    return [c if isinstance(c, str) else int(c) for c in several]


def _refuse_placeholders(given: dict[str, Any]) -> None:
    for name, value in given.items():
        if isinstance(value, str) and value == ARRAY:
            raise DataError(
                f"the {name} of this data set were passed in memory and can't be found again: pass "
                "the same array."
            )


def _is_source(value: Any) -> bool:
    """Whether validation or test is a source of its own, and not a share."""
    return value is not None and not isinstance(value, int | float | np.number)


def _stored(value: Any, inside: Sequence[str]) -> str | None:
    """How a spec writes a source, labels or weights: a name, an absolute path, or "array"."""
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike):
        return ARRAY
    if isinstance(value, str) and (value in inside or is_named(value)):
        return value
    return str(Path(value).resolve())


def _read(
    source: Any,
    options: dict[str, Any],
    data_dir: str | os.PathLike[str] | None,
    like: Source | None,
    in_memory: bool | None,
) -> Source:
    """The raw source behind a name, a path or an array."""
    if isinstance(source, str) and is_named(source):
        if options["key"] is not None:
            raise DataError(f"the data set '{source}' brings its own rows: leave key out.")
        if options["labels"] is not None:
            raise DataError(_own_labels(source))
        found = read_named(source, data_dir)
        found.weights = outside(options["weights"], "weights", found.what, ())
        return found
    if isinstance(source, str | os.PathLike):
        word = os.fspath(source).partition(":")[0]
        if not Path(source).exists() and not Path(word).suffix and os.sep not in word:
            raise unknown_name(os.fspath(source))
        return read_file(source, like=like, in_memory=in_memory, **options)
    if options["key"] is not None:
        raise DataError(f"an array has no key '{options['key']}': leave key out.")
    found = array_source(_as_array(source), "the array")
    found.labels = outside(options["labels"], "labels", found.what, ())
    found.weights = outside(options["weights"], "weights", found.what, ())
    return found


def _own_labels(name: str) -> str:
    """Say what to do with labels beside a named set: its own are there without being asked for."""
    if is_generated(name):
        return f"The data set '{name}' has no labels and takes none: leave labels out."
    return (
        f"The data set '{name}' brings its own labels: give none, which on the command line is --labels "
        "without a name."
    )


def _as_array(source: Any) -> np.ndarray:
    """An array, tensor, list or SciPy sparse matrix as a NumPy array."""
    if hasattr(source, "toarray"):
        return source.toarray()
    if isinstance(source, Tensor):
        if source.layout != torch.strided:
            raise DataError("the tensor is sparse: pass its to_dense().")
        source = source.detach().cpu()
        return (source.float() if source.dtype == torch.bfloat16 else source).numpy()
    try:
        return np.asarray(source)
    except ValueError as error:
        raise DataError("the rows are of different lengths: give them all the same.") from error


def _other_parts(
    main: Source, given: dict[str, Any], options: dict[str, Any], in_memory: bool | None
) -> dict[str, Source]:
    """Validation and test parts that are sources of their own."""
    others: dict[str, Source] = {}
    # Only names inside the file hold for another file as well; an array belongs to its rows.
    inner = {
        name: value if isinstance(value, str) and (name == "key" or value in main.inside) else None
        for name, value in options.items()
    }
    for role, value in given.items():
        if _is_source(value):
            others[role] = _read(value, inner, None, main, in_memory)
            others[role].what = f"the {role} source {others[role].what}"
    if main.test is not None and "test" not in others:
        if given["test"] is None:
            others["test"] = main.test
        elif given["test"] != 0:
            raise DataError(
                f"{main.what} has a test part of its own: leave test out, or give 0 for none."
            )
    return others


def _checked(main: Source, others: dict[str, Source]) -> str:
    """Check values and sizes, encode the labels of all parts alike; return the fingerprint."""
    parts = {"main": main, **others}
    prints = {role: rows_fingerprint(part.rows) for role, part in parts.items()}
    for role, part in parts.items():
        check_finite(part.rows, part.what, part.names)
        part.weights = check_weights(part.weights, part.what, part.rows.length)
        if part is not main:
            _check_alike(main, part)
            if prints[role] == prints["main"]:
                raise DataError(
                    f"{part.what} holds the very rows of {main.what}, which are trained on: give "
                    "other rows."
                )
    triples = [(part.what, part.labels, part.rows.length) for part in parts.values()]
    encoded, names = encode_labels(triples)
    digest = hashlib.sha256()
    for (role, part), labels in zip(parts.items(), encoded, strict=True):
        part.labels, part.label_names = labels, names or main.label_names
        texts = f"{part.names} {part.categories} {part.label_names}"
        digest.update(f"{role} {prints[role]} {texts}".encode())
        for values in (part.labels, part.weights):
            digest.update(b"none" if values is None else np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _check_alike(main: Source, part: Source) -> None:
    """Raise unless ``part`` has as many columns as ``main``, on the same scale."""
    if part.rows.width != main.rows.width:
        raise DataError(
            f"{part.what} has {part.rows.width} columns and {main.what} has {main.rows.width}: "
            "give both the same columns."
        )
    if (part.rows.dtype == torch.uint8) != (main.rows.dtype == torch.uint8):
        raise DataError(
            f"{part.what} has the dtype {part.rows.dtype} and {main.what} has {main.rows.dtype}: "
            "save both alike, since a byte 255 means 1."
        )


def _shares(main: Source, others: dict[str, Source], given: dict[str, Any]) -> dict[str, Any]:
    """The shares of the main rows that go to validation and test, defaults filled in."""
    own_test = "test" in others or main.test is not None
    default = {"validation": 0.05 if own_test else 0.1, "test": 0.1}
    shares = {role: given[role] for role in default if role not in others}
    shares = {role: default[role] if v is None else v for role, v in shares.items()}
    return {role: v.item() if isinstance(v, np.number) else v for role, v in shares.items()}


def _restrict(
    parts: dict[str, Source],
    index: dict[str, np.ndarray],
    classes: list[int | str] | None,
    limit: int | None,
) -> dict[str, np.ndarray]:
    """``index`` without other classes, and with at most ``limit`` train rows."""
    out = dict(index)
    if classes is not None:
        for role, part in parts.items():
            if part.labels is None:
                raise DataError(f"classes need labels, and {part.what} has none: give labels too.")
            codes = select_classes(classes, part.label_names)
            present = np.unique(part.labels).tolist()
            absent = [c for c, code in zip(classes, codes, strict=True) if code not in present]
            if role == "train" and absent:
                known = [part.label_names[c] if part.label_names else str(c) for c in present[:20]]
                raise DataError(
                    f"no row of {part.what} has the class {absent[0]}: its classes are "
                    f"{', '.join(known)}."
                )
            out[role] = index[role][np.isin(part.labels[index[role]], codes)]
    if limit is not None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise DataError(f"limit = {limit!r} is not a number of rows: give at least 1.")
        out["train"] = out["train"][:limit]
    if not len(out["train"]):
        raise DataError(f"no row of {parts['train'].what} is left for training: keep more classes.")
    return out


def _fit(main: Source, index: np.ndarray, transform: str | Sequence[str]) -> Transform:
    """The transform, fitted on the train rows ``index`` and no others."""
    rows = main.rows
    order = torch.from_numpy(np.sort(index))
    size = max(1, 2**22 // rows.row_bytes)

    def chunks() -> Iterator[Tensor]:
        return (rows.take(order[at : at + size]) for at in range(0, len(order), size))

    columns, grey = raw_columns(chunks(), rows.width, main.names, main.categories)
    chosen = automatic(columns, grey) if transform == "auto" else transform
    return Transform.parse(chosen).fit(chunks, columns)


def _image_shape(main: Source, given: Sequence[int] | None) -> tuple[int, ...] | None:
    shape = main.shape if given is None else tuple(int(n) for n in given)
    if shape is None or (given is None and len(shape) not in (2, 3)):
        return None
    if len(shape) not in (2, 3) or min(shape) < 1 or math.prod(shape) != main.rows.width:
        raise DataError(
            f"image_shape {shape} does not make {main.rows.width} columns: give (height, width), "
            "or (channels, height, width)."
        )
    return shape
