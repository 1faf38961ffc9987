"""Pictures and figures: from arrays to PNG files, GIF files and matplotlib figures.

Every function is pure: no global state of matplotlib is touched, and the same input gives the same
bytes. matplotlib and Pillow are imported on first use. Figures are drawn on white paper on purpose,
so that they read the same in a light page, in a dark page and as a file of their own; they are
4.7 inches wide with 9 point text, which is still legible when a phone shrinks them to 350 pixels.

An *image shape* is ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)`` with one or three channels, or None
for rows that are no images: those are shown as heat-maps, one line a row.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gibbsian.errors import GibbsianError
from gibbsian.plots.charts import energy_chains, learning_curves, likelihood_bounds, study
from gibbsian.plots.ladders import ladder, log_z_along, mixing
from gibbsian.plots.memory import capacity
from gibbsian.plots.pictures import (
    _SEPARATOR,
    Array,
    ImageShape,
    Normalise,
    Number,
    _cells,
    _columns,
    _enlarge,
    _grey,
    _grid,
    _limits,
    _numbers,
    _rows,
    save_gif,
    save_images,
    tile,
)
from gibbsian.plots.style import DPI, MUTED, WIDTH, _styled, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "along_ladder",
    "capacity",
    "classes",
    "energy_chains",
    "filters",
    "labelled",
    "ladder",
    "learning_curves",
    "likelihood_bounds",
    "log_z_along",
    "mixing",
    "reconstructions",
    "samples_and_neighbours",
    "save",
    "save_gif",
    "save_images",
    "strip",
    "study",
    "tile",
]

_MARGIN = 20  # pixels of white around a picture

_GAP, _FRAME, _BAR = 10, 2, 320  # pixels


def _sheet(cells: np.ndarray, columns: int, scale: int) -> np.ndarray:
    """Lay enlarged cells out on white paper, a hairline frame around each."""
    frame = ((0, 0), (_FRAME, _FRAME), (_FRAME, _FRAME), (0, 0))[: cells.ndim]
    framed = np.pad(_enlarge(cells, scale), frame, constant_values=_SEPARATOR)
    return _grid(framed, columns, _GAP, 255)[_GAP:-_GAP, _GAP:-_GAP]


def _fit(w: int, columns: int, left: int = 0) -> int:
    """Choose the whole number by which cells of width w are enlarged, so that they fill a line."""
    room = round(WIDTH * DPI) - 2 * _MARGIN - left
    return max(1, min(20, (room // columns - _GAP - 2 * _FRAME) // w))


def _label_width(names: Sequence[str]) -> int:
    return 16 * max(map(len, names)) + 14  # pixels: 9 point text is at most so wide


def _picture(
    image: np.ndarray,
    *,
    title: str = "",
    note: str = "",
    columns: Sequence[tuple[Number, str]] = (),
    rows: Sequence[tuple[Number, str]] = (),
    bar: tuple[str, float] | None = None,
) -> "Figure":
    """Put an image on paper pixel by pixel, with labels.

    ``note`` is a line below the title; ``columns`` and ``rows`` are labels with their centre in
    pixels of the image; ``bar`` is a colour map and its limit.
    """
    from matplotlib.figure import Figure

    h, w = image.shape[:2]
    left = _MARGIN + (_label_width([name for _, name in rows]) if rows else 0)
    top = _MARGIN + (52 if title else 0) + (36 if note else 0) + (40 if columns else 0)
    bottom = _MARGIN + (84 if bar else 0)
    total_w = max(left + w, 19 * len(title), 15 * len(note), left + _BAR if bar else 0) + _MARGIN
    total_h = top + h + bottom
    figure = Figure(figsize=(total_w / DPI, total_h / DPI), dpi=DPI)
    axes = figure.add_axes((left / total_w, bottom / total_h, w / total_w, h / total_h))
    colours = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)
    axes.imshow(colours, interpolation="nearest", aspect="auto")
    axes.set_axis_off()

    def text(x: Number, y: Number, label: str, **style: Any) -> None:
        figure.text(x / total_w, 1 - y / total_h, label, **style)

    if title:
        text(_MARGIN, _MARGIN, title, va="top", fontsize=10, fontweight="bold")
    if note:
        text(_MARGIN, _MARGIN + 44, note, va="top", color=MUTED)
    for x, label in columns:
        text(left + x, top - 12, label, ha="center", va="bottom", color=MUTED)
    for y, label in rows:
        text(left - 14, top + y, label, ha="right", va="center", color=MUTED)
    if bar:
        strip = figure.add_axes((left / total_w, 58 / total_h, _BAR / total_w, 16 / total_h))
        _colour_bar(strip, *bar)
    return figure


def _colour_bar(axes: "Axes", colour_map: str, limit: float) -> None:
    axes.imshow(np.linspace(-1, 1, 256)[None], cmap=colour_map, aspect="auto", extent=(-1, 1, 0, 1))
    axes.set_yticks([])
    axes.set_xticks([-1, 0, 1], [f"\N{MINUS SIGN}{limit:.2g}", "0", f"+{limit:.2g}"])
    axes.tick_params(length=0, pad=4)
    # Written within the bar's width, so that long ones stay on the paper.
    ends = axes.get_xticklabels()
    ends[0].set_horizontalalignment("left")
    ends[-1].set_horizontalalignment("right")
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _heat(
    panels: Sequence[tuple[str, np.ndarray]],
    limits: tuple[Number, Number],
    *,
    colour_map: str = "cividis",
    row: str = "row",
    title: str = "",
) -> "Figure":
    """Draw heat-maps (rows x visible units) under each other or, if narrow, beside each other."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    n, d = panels[0][1].shape
    beside = 1 if d > 24 or len(panels) == 1 else min(3, len(panels))
    down = -(-len(panels) // beside)
    each = min(2.6, max(0.7, (0.09 if down < 4 else 0.05) * n)) + 0.3
    figure = Figure(figsize=(WIDTH, down * each + 1.1), layout="constrained")
    grid = figure.subplots(down, beside, squeeze=False, sharex=True, sharey=True)
    image = None
    for axes, (label, values) in zip(grid.flat, panels, strict=False):
        image = axes.imshow(
            values,
            aspect="auto",
            cmap=colour_map,
            vmin=limits[0],
            vmax=limits[1],
            extent=(0.5, d + 0.5, n + 0.5, 0.5),
        )
        axes.set_title(label, fontsize=9)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("visible unit")
    figure.supylabel(row, fontsize=9, color=MUTED)
    if title:
        figure.suptitle(title, fontsize=10, fontweight="bold", x=0.01, ha="left")
    if image is not None:
        bar = figure.colorbar(
            image, ax=grid, location="bottom", shrink=0.4, aspect=24, anchor=(0, 0)
        )
        bar.outline.set_visible(False)
        bar.locator = MaxNLocator(3)
    return figure


def _same_rows(**stacks: Array) -> None:
    sizes = {name: np.shape(stack) for name, stack in stacks.items()}
    if len(set(sizes.values())) > 1:
        text = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise GibbsianError(f"These must have one shape: {text}.")


def _bands(
    stacks: Sequence[tuple[str, Array]], image_shape: ImageShape, normalise: Normalise
) -> "Figure":
    """Show row i of every stack under each other: one band of len(stacks) lines per few rows."""
    cells = [_cells(stack, image_shape) for _, stack in stacks]
    limits = _limits(np.stack(cells), normalise)
    if image_shape is None:
        return _heat([(name, c[:, 0]) for (name, _), c in zip(stacks, cells, strict=True)], limits)
    n, _, w = cells[0].shape[:3]
    columns = max(1, min(n, 8, 800 // w))
    names = [name for name, _ in stacks]
    lines = [
        (name, _grey(stack[start : start + columns], limits), 40 if name == names[-1] else _GAP)
        for start in range(0, n, columns)
        for name, stack in zip(names, cells, strict=True)
    ]
    return _sheets(lines, columns)


def _sheets(sheets: Sequence[tuple[str, np.ndarray, int]], columns: int) -> "Figure":
    """Lay sheets out under each other: the name of each, its cells and the white pixels below it."""
    scale = _fit(sheets[0][1].shape[2], columns, _label_width([name for name, _, _ in sheets]))
    parts, rows, offset = [], [], 0
    for name, cells, below in sheets:
        sheet = _sheet(cells, columns, scale)
        rows.append((offset + len(sheet) / 2, name))
        parts += [sheet, np.full((below, *sheet.shape[1:]), 255, np.uint8)]
        offset += len(sheet) + below
    return _picture(np.concatenate(parts[:-1]), rows=rows)


@_styled
def samples_and_neighbours(
    samples: Array, neighbours: Array, image_shape: ImageShape, *, normalise: Normalise = "unit"
) -> "Figure":
    """Show each sample ``(n, d)`` above its nearest training row ``(n, d)``.

    Raises GibbsianError if the two differ in shape or are not of the image shape.
    """
    _same_rows(samples=samples, neighbours=neighbours)
    return _bands([("sample", samples), ("nearest", neighbours)], image_shape, normalise)


@_styled
def reconstructions(
    original: Array,
    corrupted: Array | None,
    repaired: Array,
    image_shape: ImageShape,
    *,
    normalise: Normalise = "unit",
) -> "Figure":
    """Show rows ``(n, d)`` as they were, as they were spoilt, and as the machine repaired them.

    Without ``corrupted`` the last are called reconstructions.

    Raises GibbsianError if the stacks differ in shape or are not of the image shape.
    """
    if corrupted is None:
        _same_rows(original=original, reconstructed=repaired)
        stacks = [("original", original), ("reconstructed", repaired)]
    else:
        _same_rows(original=original, corrupted=corrupted, repaired=repaired)
        stacks = [("original", original), ("corrupted", corrupted), ("repaired", repaired)]
    return _bands(stacks, image_shape, normalise)


@_styled
def labelled(
    stacks: Mapping[str, Array], image_shape: ImageShape, *, normalise: Normalise = "unit"
) -> "Figure":
    """Show stacks of rows ``(n, d)`` under each other, each by its name: row i of all in one column.

    Raises GibbsianError if there are none, or they differ in shape or are not of the image shape.
    """
    if not stacks:
        raise GibbsianError("There are no rows to draw: pass at least one stack of them.")
    _same_rows(**stacks)
    return _bands(list(stacks.items()), image_shape, normalise)


@_styled
def classes(
    stacks: Mapping[str, Array], image_shape: ImageShape, *, normalise: Normalise = "unit"
) -> "Figure":
    """Show stacks of rows ``(n, d)``, of a class each say, every one in lines of its own by its name.

    The stacks may be of different lengths.

    Raises GibbsianError if there are none, or they are not of the image shape.
    """
    if not stacks:
        raise GibbsianError("There are no rows to draw: pass at least one stack of them.")
    cells = {name: _cells(stack, image_shape) for name, stack in stacks.items()}
    limits = _limits(np.concatenate(list(cells.values())), normalise)
    longest = max(map(len, cells.values()))
    if image_shape is None:
        blank = {name: ((0, longest - len(c)), (0, 0)) for name, c in cells.items()}
        filled = {k: np.pad(c[:, 0], blank[k], constant_values=np.nan) for k, c in cells.items()}
        return _heat(list(filled.items()), limits)
    # Very many are laid out wider, so that the picture is not endlessly high.
    columns = min(longest, max(10, math.isqrt(longest * len(cells)) // 2))
    below = 30 if longest > columns else _GAP
    return _sheets([(name, _grey(c, limits), below) for name, c in cells.items()], columns)


@_styled
def strip(
    trace: Array, steps: Sequence[int], image_shape: ImageShape, *, normalise: Normalise = "unit"
) -> "Figure":
    """Show the same chains after each number of Gibbs steps: a column a time, a line a chain.

    Parameters
    ----------
    trace
        States ``(T, n, d)``.
    steps
        The T numbers of Gibbs steps at which they were taken.

    Raises
    ------
    GibbsianError
        If trace and steps differ in length, or the states are not of the image shape.
    """
    values = _numbers(trace, "states")
    if values.ndim < 3 or len(values) != len(steps):
        raise GibbsianError(
            f"A strip needs states (T, n, d) at T numbers of steps, not states {values.shape}"
            f" at {len(steps)} numbers."
        )
    times, n = values.shape[:2]
    cells = _cells(values.reshape(times * n, -1), image_shape)
    limits = _limits(cells, normalise)
    labels = [f"{int(step):,}" for step in steps]
    title = "Gibbs steps since the start"
    if image_shape is None:
        states = cells[:, 0].reshape(times, n, -1)
        return _heat(list(zip(labels, states, strict=True)), limits, row="chain", title=title)
    grey = _grey(cells, limits)
    by_chain = grey.reshape(times, n, *grey.shape[1:]).swapaxes(0, 1).reshape(grey.shape)
    scale = _fit(grey.shape[2], times)
    sheet = _sheet(by_chain, times, scale)
    pitch = grey.shape[2] * scale + 2 * _FRAME + _GAP
    centres = [((t + 0.5) * pitch - _GAP / 2, label) for t, label in enumerate(labels)]
    return _picture(sheet, title=title, columns=centres)


@_styled
def along_ladder(
    samples: Array, labels: Sequence[str], image_shape: ImageShape, *,
    normalise: Normalise = "unit", most: int = 12,
) -> "Figure":  # fmt: skip
    """Show samples of each level of a ladder, a line a level, from the reference down to the machine.

    Parameters
    ----------
    samples
        States ``(levels, n, d)``.
    labels
        A name for each level.
    image_shape
        Of the rows; None shows heat-maps, one a level.
    most
        Levels shown; of more, as many at even distances, both ends among them.

    Raises
    ------
    GibbsianError
        If samples and labels differ in length, or the states are not of the image shape.
    """
    values = _numbers(samples, "states")
    if values.ndim < 3 or len(values) != len(labels):
        raise GibbsianError(
            f"A ladder needs states (levels, n, d) and a label each, not states {values.shape} and"
            f" {len(labels)} labels."
        )
    shown = np.unique(np.linspace(0, len(values) - 1, min(max(most, 2), len(values))).round())
    values, names = values[shown.astype(int)], [labels[int(i)] for i in shown]
    levels, n = values.shape[:2]
    cells = _cells(values.reshape(levels * n, -1), image_shape)
    limits = _limits(cells, normalise)
    title = "Samples along the ladder"
    if image_shape is None:
        states = cells[:, 0].reshape(levels, n, -1)
        return _heat(list(zip(names, states, strict=True)), limits, row="chain", title=title)
    grey = _grey(cells, limits)
    scale = _fit(grey.shape[2], n, _label_width(names))
    sheet = _sheet(grey, n, scale)
    pitch = grey.shape[1] * scale + 2 * _FRAME + _GAP
    rows = [((i + 0.5) * pitch - _GAP / 2, name) for i, name in enumerate(names)]
    return _picture(sheet, title=title, rows=rows)


def _layer(number: int) -> str:
    what = "couplings" if number == 1 else "products of couplings down"
    return f"Layer {number}: {what} to the visible units"


@_styled
def filters(
    weights: Array, image_shape: ImageShape, *, most: int = 64, layer: int | None = None
) -> "Figure":
    """Show the rows of ``weights`` ``(n_hidden, n_visible)`` of largest Euclidean norm.

    At most ``most`` are shown, on one colour scale for all: blue negative, white zero, red positive
    (for colour images mid-grey is zero). The scale ends at the 99.8 % quantile of the absolute
    weights shown, so that a few large ones do not bleach the rest. ``layer`` is the hidden layer, from
    1, that they belong to, which is then written below the title.

    Raises GibbsianError if there are no rows or they are not of the image shape.
    """
    from matplotlib import colormaps

    rows = _rows(weights)
    order = np.argsort(-np.linalg.norm(rows, axis=1), kind="stable")[: max(1, most)]
    cells = _cells(rows[order], image_shape)
    limit = float(np.quantile(np.abs(cells), 0.998)) or float(np.abs(cells).max()) or 1.0
    title = f"{len(order):,} of {len(rows):,} filters, largest norm first"
    note = "" if layer is None else _layer(layer)
    if image_shape is None:
        panel, title = [("", cells[:, 0])], f"{title}\n{note}".strip()
        return _heat(panel, (-limit, limit), colour_map="RdBu_r", row="hidden unit", title=title)
    grey = _grey(cells, (-limit, limit))
    n, h, w = grey.shape[:3]
    columns = max(1, min(_columns(n, h, w), 1000 // w))
    scale = _fit(w, columns)
    if grey.ndim == 4:
        return _picture(_sheet(grey, columns, scale), title=title, note=note)
    colours = colormaps["RdBu_r"](grey, bytes=True)[..., :3]
    sheet = _sheet(colours, columns, scale)
    return _picture(sheet, title=title, note=note, bar=("RdBu_r", limit))
