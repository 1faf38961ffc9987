"""How well hidden rows of an image come back, and how long a free chain remembers the image it started at."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from gibbsian import repair
from gibbsian.arguments import whole
from gibbsian.errors import GibbsianError
from gibbsian.evaluators.chains import run_chains
from gibbsian.evaluators.mixing import autocorrelation_time
from gibbsian.machine import BoltzmannMachine
from gibbsian.samplers.base import as_generator
from gibbsian.units import base as unit

BANDS = ("top", "middle", "bottom")
Progress = Callable[[str, float], None] | None
_SURE = 2.0  # standard errors
_BLANK = 1e-4  # squared error per pixel below which there is nothing to know
_COMPONENTS = 5


@dataclass(frozen=True)
class Hidden:
    """What came back of a band of hidden rows.

    Attributes
    ----------
    band : {"top", "middle", "bottom"}
    rows : int
        Image rows that were hidden.
    error, standard_error : float
        Mean squared error per hidden column, over images and repetitions, and its standard error from
        the scatter between images (of the means over their repetitions).
    baseline : float
        The same error where the hidden columns are filled with the training rows' means: what one
        knows of them without looking at the rest of the image.
    """

    band: str
    rows: int
    error: float
    standard_error: float
    baseline: float

    @property
    def share(self) -> float | None:
        """The error as a share of the baseline: 1 is nothing learned from the rest of the image.

        None where the training rows are all but alike there, such as at an empty edge.
        """
        return self.error / self.baseline if self.baseline > _BLANK else None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"share": self.share}


def band(image_shape: Sequence[int] | None, where: str, rows: int) -> Bool[Tensor, " pixels"]:
    """Mark the pixels of so many rows at the top, in the middle or at the bottom of an image.

    Raises
    ------
    GibbsianError
        If the data are no images, there is no such band, or no or every row would be hidden.
    """
    if image_shape is None:
        raise GibbsianError(
            "This study hides rows of images, and these data are none; train on images, or on a file "
            "with an image shape."
        )
    if where not in BANDS:
        raise GibbsianError(f"A band is {', '.join(BANDS)}, not {where!r}.")
    height = _height(image_shape)
    rows = whole(rows, "The number of hidden rows")
    if rows >= height:
        raise GibbsianError(
            f"The images have {height} rows, so at most {height - 1} of them can be hidden, not {rows}."
        )
    first = {"top": 0, "middle": (height - rows) // 2, "bottom": height - rows}[where]
    return repair.hidden_pixels(image_shape, slice(first, first + rows), None)


def default_counts(image_shape: Sequence[int] | None) -> list[int]:
    """Return numbers of rows from one to half of the image."""
    height = 2 if image_shape is None else _height(image_shape)
    return sorted({max(1, round(height * share)) for share in (0, 1 / 8, 1 / 4, 3 / 8, 1 / 2)})


def _height(image_shape: Sequence[int]) -> int:
    return image_shape[1 if len(image_shape) == 3 and image_shape[0] in (1, 3) else 0]


def hidden_rows(
    machine: BoltzmannMachine,
    x: Float[Tensor, "images n"],
    image_shape: Sequence[int] | None,
    typical: Float[Tensor, " n"],
    counts: Sequence[int],
    repetitions: int = 3,
    steps: int = 200,
    generator: Generator | int | None = None,
    progress: Progress = None,
) -> tuple[list[Hidden], dict[str, repair.Repair]]:
    """Hide bands of rows of images, draw them anew given the rest, and measure the error.

    Parameters
    ----------
    machine : BoltzmannMachine
    x : Tensor (images, n)
        Held-out rows, as the machine takes them; at least 2. Where they hold probabilities of a 1, each
        repetition holds bits drawn from them, and the error is against the probabilities.
    image_shape : sequence of int
        Of a row, as `gibbsian.data.Dataset` has it.
    typical : Tensor (n,)
        Means of the training rows.
    counts : sequence of int
        Numbers of image rows to hide, in each of `BANDS`.
    repetitions : int
        Chains for each image; they differ in their noise.
    steps : int
        Gibbs steps of each, the last quarter of which is averaged: see `gibbsian.repair.inpaint`.
    generator : torch.Generator or int
        Source of randomness, or a seed.
    progress : callable, optional
        Called with a stage and the fraction done.

    Returns
    -------
    list of Hidden, dict of str to Repair
        One entry a band and a count; and for each band, for pictures, the repair of the middle count,
        averaged over the repetitions.

    Raises
    ------
    GibbsianError
        If the data are no images, or a setting is impossible.
    """
    if not len(counts) or len(x) < 2:
        raise GibbsianError(
            f"The study needs a number of rows to hide and at least 2 images, not {len(x)}."
        )
    repetitions = whole(repetitions, "The number of repetitions")
    steps = whole(steps, "The number of steps")
    masks = {(b, k): band(image_shape, b, k) for k in sorted(counts) for b in BANDS}
    generator = as_generator(generator, machine)
    found, shown, middle = [], {}, sorted(counts)[len(counts) // 2]
    truth, typical = x.repeat(repetitions, 1), typical.to(x)
    many = unit.states(machine.layers[0], truth, generator)
    for done, ((where, rows), pixels) in enumerate(masks.items(), start=1):
        hidden = repair.blocks_of(machine, pixels).to(x.device)
        made = repair.inpaint(machine, many, hidden, generator, steps, max(1, steps // 4))
        squares = (made.repaired - truth)[:, hidden].square().mean(dim=1)
        each = squares.reshape(repetitions, len(x)).mean(dim=0).double()
        base = (typical - x)[:, hidden].square().mean()
        error = float(each.std()) / len(x) ** 0.5
        found.append(Hidden(where, rows, float(each.mean()), error, float(base)))
        if rows == middle:
            shown[where] = _averaged(made, x, hidden)
        if progress is not None:
            progress("hidden rows", done / len(masks))
    return found, shown


def _averaged(
    made: repair.Repair, x: Float[Tensor, "images n"], hidden: Bool[Tensor, " n"]
) -> repair.Repair:
    """Return the mean over the repetitions in the hidden columns, and the image in the others."""
    mean = made.repaired.reshape(-1, *x.shape).mean(dim=0)
    blank = torch.where(hidden, x.mean(), x)
    return repair.Repair(x, blank, torch.where(hidden, mean, x), made.before, made.after)


@dataclass(frozen=True)
class Walk:
    """Free chains from images, and how far they went.

    Attributes
    ----------
    steps : tuple of int
        Gibbs steps at which the chains were looked at, 0 among them.
    distance, standard_error : tuple of float
        Mean squared distance of a chain's state to its own image, per column, and its standard error.
    others : tuple of float
        The same to the images that the other chains began at: what two that have nothing to do with
        each other are apart.
    forgotten : int or None
        The step from which on, at every later look, the chains are no closer to their own image than
        to the others within 2 standard errors; None where they still are at the end.
    autocorrelation_time : float
        In steps, over the second half: the longest of the free energy's and of the images' first
        principal components.
    states : Tensor (times, chains, n)
        Visible states at `steps`, samples and not means.
    """

    steps: tuple[int, ...]
    distance: tuple[float, ...]
    standard_error: tuple[float, ...]
    others: tuple[float, ...]
    forgotten: int | None
    autocorrelation_time: float
    states: Float[Tensor, "times chains n"]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; the states are left out."""
        return {k: v for k, v in vars(self).items() if k != "states"}

    def words(self) -> list[str]:
        """Say in plain sentences what became of the images, and why."""
        last, own, other = self.steps[-1], self.distance[-1], self.others[-1]
        first = next((i for i, s in enumerate(self.steps) if s > 0), 0)
        said = [
            f"After {_steps(self.steps[first])} a chain is {self.distance[first]:.3f} per column from its "
            f"own image, after {_steps(last)} {own:.3f}; images that have nothing to do with it are "
            f"{other:.3f} away."
        ]
        tau = f"the chains' autocorrelation time is about {_steps(self.autocorrelation_time)}"
        if self.forgotten is None:
            said.append(
                f"The chains still know where they began after {_steps(last)}: the machine mixes slowly "
                f"({tau})."
            )
        else:
            chains = self.states.shape[1]
            said.append(
                f"From {_steps(self.forgotten)} on the {chains} chains are not measurably closer "
                f"to their own image than to the others: they have forgotten where they began ({tau})."
            )
        said.append(
            "That is no fault of long chains: unlike inpainting, nothing holds them at the image. Each step "
            "keeps the machine's distribution and not the picture, so after a few autocorrelation times "
            "a state is a sample of the model, and only as good as the model is."
        )
        return said


def _steps(count: float) -> str:
    text = f"{count:,.0f}"
    return f"{text} step" if text == "1" else f"{text} steps"


def looks(steps: int) -> list[int]:
    """Return the steps 0, 1, 2, 5, 10, 20, 50, … up to `steps`."""
    grid = {m * 10**e for e in range(len(str(steps))) for m in (1, 2, 5)}
    return sorted({0, steps} | {s for s in grid if s <= steps})


def walk(
    machine: BoltzmannMachine,
    x: Float[Tensor, "rows n"],
    chains: int = 32,
    steps: int = 10_000,
    generator: Generator | int | None = None,
    progress: Progress = None,
) -> Walk:
    """Let chains go from images with nothing held, and measure how far they are from them.

    Parameters
    ----------
    machine : BoltzmannMachine
    x : Tensor (rows, n)
        Images to start from; bits are drawn where they hold probabilities of a 1.
    chains : int
        Chains, each from another row; at least 3 and at most as many as there are rows.
    steps : int
        Gibbs steps, at least 8.
    generator : torch.Generator or int
        Source of randomness, or a seed.
    progress : callable, optional
        Called with a stage and the fraction done.

    Raises
    ------
    GibbsianError
        If a setting is impossible.
    """
    steps = whole(steps, "The number of steps of free chains", 8)
    chains = min(whole(chains, "The number of free chains", 3), len(x))
    if chains < 3:
        raise GibbsianError(f"Free chains need at least 3 images to start from, not {len(x)}.")
    found = run_chains(
        machine, chains, steps, ("data",), x, looks(steps), generator=generator,
        progress=None if progress is None else lambda _, done: progress("free chains", done),
        observe=_components(x),
    )["data"]  # fmt: skip
    half = found.after(0.5)
    slow = [half] if found.observed is None else [half, *found.observed[-len(half) :].unbind(dim=2)]
    at = tuple(sorted(found.visible))
    states = torch.stack([found.visible[i] for i in at])
    apart = _apart(states)
    own = apart.diagonal(dim1=1, dim2=2)
    others = (apart.sum(dim=2) - own) / (chains - 1)
    nearer = others - own
    error = nearer.std(dim=1) / chains**0.5
    apparent = (nearer.mean(dim=1) > _SURE * error).nonzero().flatten().tolist()
    after = apparent[-1] + 1 if apparent else 0
    return Walk(
        at,
        tuple(own.mean(dim=1).tolist()),
        tuple((own.std(dim=1) / chains**0.5).tolist()),
        tuple(others.mean(dim=1).tolist()),
        at[after] if after < len(at) else None,
        found.thin * max(autocorrelation_time(s) for s in slow),
        states,
    )


def _components(x: Float[Tensor, "rows n"]) -> Callable[[Tensor], Tensor]:
    """Return a function from states to their first principal components among the images."""
    mean = x.mean(dim=0)
    axes = torch.linalg.svd((x - mean).double(), full_matrices=False)[2][:_COMPONENTS].to(x)
    return lambda v: (v - mean) @ axes.T


def _apart(states: Float[Tensor, "times chains n"]) -> Float[Tensor, "times chains chains"]:
    """Return the mean squared distance per column of each state to each chain's first state."""
    wide = states.double()
    start = wide[0].expand_as(wide)
    return torch.cdist(wide, start).square() / states.shape[-1]


__all__ = [
    "BANDS", "Hidden", "Walk", "band", "default_counts", "hidden_rows", "looks", "walk",
]  # fmt: skip
