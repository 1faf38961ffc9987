"""Pixels: rows laid out as one grid, and written as PNG or GIF; Pillow is imported on first use."""

import contextlib
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor

from gibbsian.errors import GibbsianError

if TYPE_CHECKING:
    pass

Array = Shaped[Tensor, "..."] | Shaped[np.ndarray, "..."]

ImageShape = Sequence[int] | None

Number = float | int

Normalise = Literal["unit", "symmetric"] | tuple[Number, Number]

Scale = int | Literal["auto"]

_SEPARATOR = 176  # the grey around pictures: visible beside black and beside white


def _numbers(values: Any, what: str) -> np.ndarray:
    array = (
        values.detach().to("cpu", torch.float64).numpy()
        if isinstance(values, Tensor)
        else np.asarray(values, dtype=np.float64)
    )
    if array.size == 0:
        raise GibbsianError(f"There are no {what} to draw: pass at least one.")
    return array


def _rows(x: Array) -> np.ndarray:
    """Return ``(n, d)``; a single row may come as ``(d,)``."""
    array = _numbers(x, "rows")
    if not np.isfinite(array).all():
        raise GibbsianError("The rows to draw hold NaN or infinite values: draw finite rows only.")
    return array.reshape(1, -1) if array.ndim < 2 else array.reshape(len(array), -1)


def _cells(x: Array, image_shape: ImageShape) -> np.ndarray:
    """Return ``(n, H, W)`` or ``(n, H, W, 3)``; without an image shape ``(n, 1, d)``."""
    rows = _rows(x)
    if image_shape is None:
        return rows[:, None, :]
    shape = tuple(int(side) for side in image_shape)
    colour = len(shape) == 3 and bool({shape[0], shape[-1]} & {1, 3})
    if not (len(shape) == 2 or colour) or min(shape) < 1:
        raise GibbsianError(
            f"The image shape {shape} is none of (H, W), (H, W, C) and (C, H, W) with 1 or 3"
            " channels: pass such a shape, or None for rows that are no images."
        )
    if rows.shape[1] != math.prod(shape):
        raise GibbsianError(
            f"Rows of {rows.shape[1]} values are not images of shape {shape}, which hold"
            f" {math.prod(shape)}: pass the image shape that belongs to these data."
        )
    cells = rows.reshape(-1, *shape)
    if colour and shape[-1] not in (1, 3):
        cells = np.moveaxis(cells, 1, -1)
    return cells[..., 0] if cells.ndim == 4 and cells.shape[-1] == 1 else cells


def _limits(values: np.ndarray, normalise: Normalise) -> tuple[float, float]:
    if isinstance(normalise, str):
        if normalise not in ("unit", "symmetric"):
            raise GibbsianError(
                f"normalise={normalise!r} is unknown: use 'unit', 'symmetric' or (low, high)."
            )
        largest = float(np.abs(values).max()) or 1.0
        return (0.0, 1.0) if normalise == "unit" else (-largest, largest)
    low, high = (float(limit) for limit in normalise)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise GibbsianError(
            f"normalise=({low}, {high}) is no range: the first must be smaller than the second."
        )
    return low, high


def _grey(cells: np.ndarray, normalise: Normalise) -> UInt8[np.ndarray, "..."]:
    low, high = _limits(cells, normalise)
    return np.rint(np.clip((cells - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _enlarge(cells: np.ndarray, scale: int) -> np.ndarray:
    return cells.repeat(scale, axis=1).repeat(scale, axis=2)


def _grid(cells: np.ndarray, columns: int, pad: int, fill: int) -> np.ndarray:
    """Lay ``(n, H, W[, C])`` out row by row, with ``fill`` around each and in places left over."""
    n, h, w = cells.shape[:3]
    rows = -(-n // columns)
    shape = (rows * (h + pad) + pad, columns * (w + pad) + pad, *cells.shape[3:])
    out = np.full(shape, fill, dtype=np.uint8)
    for i, cell in enumerate(cells):
        top, left = pad + (i // columns) * (h + pad), pad + (i % columns) * (w + pad)
        out[top : top + h, left : left + w] = cell
    return out


def _columns(n: int, h: int, w: int) -> int:
    """Choose the number of columns: nearly square, a little wide, few places empty."""

    def cost(columns: int) -> float:
        rows = -(-n // columns)
        return abs(math.log(columns * w / (1.2 * rows * h))) + 4 * (rows * columns - n) / n

    return min(range(n, 0, -1), key=cost)


def tile(
    x: Array,
    image_shape: ImageShape,
    *,
    columns: int | None = None,
    pad: int = 1,
    scale: int = 1,
    normalise: Normalise = "unit",
) -> UInt8[np.ndarray, "..."]:
    """Lay images out as one grid.

    Parameters
    ----------
    x
        Shape ``(n, d)``, or any ``(n, ...)`` with d values a row.
    image_shape
        The shape of one image; None gives a heat-map of n lines and d columns, without padding.
    columns
        Images beside each other; by default the grid is about square.
    pad
        Grey pixels around each image.
    scale
        Each value becomes a crisp square of ``scale`` x ``scale`` pixels; the padding does not.
    normalise
        What is black and what white: ``"unit"`` 0 and 1, ``"symmetric"`` -m and m with m the
        largest absolute value (0 is mid-grey), or ``(low, high)``. Values outside are clipped.

    Returns
    -------
    uint8, ``(height, width)`` for grey images, ``(height, width, 3)`` for colour.

    Raises
    ------
    GibbsianError
        If there are no rows, they hold NaN, or their size is not that of the image shape.
    """
    cells = _grey(_cells(x, image_shape), normalise)
    if image_shape is None:
        columns, pad = 1, 0
    columns = _columns(*cells.shape[:3]) if columns is None else columns
    if columns < 1 or pad < 0 or scale < 1:
        raise GibbsianError(
            f"A grid needs columns >= 1, pad >= 0 and scale >= 1, not columns={columns},"
            f" pad={pad} and scale={scale}."
        )
    return _grid(_enlarge(cells, scale), min(columns, len(cells)), pad, _SEPARATOR)


def _write(path: str | Path, content: bytes) -> Path:
    """Write the whole file or none of it."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise GibbsianError(
            f"The picture {path} cannot be written ({error.strerror}): choose another place."
        ) from error
    return path


def _tile_for_file(x: Array, image_shape: ImageShape, scale: Scale, **layout: Any) -> np.ndarray:
    if scale == "auto":
        plain = tile(x, image_shape, **{**layout, "pad": 0})
        scale = max(1, min(32, 1024 // max(plain.shape[:2])))
    return tile(x, image_shape, scale=scale, **layout)


def save_images(
    x: Array,
    image_shape: ImageShape,
    path: str | Path,
    scale: Scale = "auto",
    *,
    columns: int | None = None,
    pad: int = 6,
    normalise: Normalise = "unit",
) -> Path:
    """Write rows ``(n, d)`` as one PNG, each value a crisp square of ``scale`` x ``scale`` pixels.

    ``"auto"`` makes the longer side about 1,000 pixels. The other parameters, and the errors, are
    those of :func:`tile`; a path that cannot be written is a GibbsianError too.
    """
    from PIL import Image

    layout = {"columns": columns, "pad": pad, "normalise": normalise}
    buffer = io.BytesIO()
    picture = Image.fromarray(_tile_for_file(x, image_shape, scale, **layout))
    picture.save(buffer, format="PNG", optimize=True)
    return _write(path, buffer.getvalue())


def save_gif(
    frames: Array,
    image_shape: ImageShape,
    path: str | Path,
    fps: Number = 10,
    scale: Scale = "auto",
    *,
    columns: int | None = None,
    pad: int = 6,
    normalise: Normalise = "unit",
) -> Path:
    """Write frames ``(T, n, d)`` as an endless GIF of ``fps`` frames a second, the last one held.

    One scale of values serves all frames. A frame equal to the one before is merged with it, and
    their times add up. The other parameters, and the errors, are those of :func:`save_images`.
    """
    from PIL import Image

    values = _numbers(frames, "frames")
    if values.ndim < 3:
        raise GibbsianError(
            f"Frames have the shape (T, n, d), not {values.shape}: pass one grid of rows a frame."
        )
    if not 0 < fps <= 50:  # browsers slow down what claims to be faster than 50
        raise GibbsianError(f"fps={fps} cannot be played: choose more than 0 and at most 50.")
    layout = {"columns": columns, "pad": pad, "normalise": _limits(values, normalise)}
    pictures = []
    for frame in values:
        picture = Image.fromarray(_tile_for_file(frame, image_shape, scale, **layout))
        pictures.append(picture.quantize(256) if picture.mode == "RGB" else picture)
    times = [round(1000 / fps)] * (len(pictures) - 1) + [1500]
    buffer = io.BytesIO()
    first, *others = pictures
    first.save(buffer, format="GIF", save_all=True, append_images=others, duration=times, loop=0)
    return _write(path, buffer.getvalue())
