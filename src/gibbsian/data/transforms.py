"""A transform: steps in a row, fitted on training rows and stored with the run."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor

from gibbsian.data.columns import Columns, Layout, merged
from gibbsian.data.onehot import OneHot
from gibbsian.data.steps import (
    Dequantise,
    Identity,
    Scale,
    Spin,
    Standardise,
    Step,
    StochasticBinarise,
    Threshold,
)
from gibbsian.errors import DataError

_PLAIN: dict[str, Callable[[], Step]] = {
    "identity": Identity,
    "threshold": Threshold,
    "stochastic-binarise": StochasticBinarise,
    "scale": Scale,
    "scale-columns": lambda: Scale(each=True),
    "standardise": Standardise,
    "standardise-global": lambda: Standardise(together=True),
    "dequantise": Dequantise,
    "spin": Spin,
    "one-hot": OneHot,
}
_NUMBER: dict[str, Callable[[float], Step]] = {"threshold": Threshold, "dequantise": Dequantise}


def transform_names() -> list[str]:
    """The names that ``Transform.parse`` knows."""
    return sorted(_PLAIN)


class Transform:
    """Steps in a row, from raw rows to the float32 rows that a machine sees.

    Parameters
    ----------
    steps : the steps, in order; see ``Transform.parse`` for their names.

    Attributes
    ----------
    random : whether the rows are drawn anew at each visit.
    layout : what the output columns are: blocks ("real" | "binary" | "onehot" | "spin", width).
    column_names : one name for each output column of a table, else empty.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = tuple(steps)
        self.random = any(step.random for step in self.steps)
        self._input: Columns | None = None
        self._output: Columns | None = None

    @classmethod
    def parse(cls, text: str | Iterable[str]) -> Transform:
        """A transform from names: one, a list of them, or several joined by "+".

        A name may carry a parameter after a colon: "threshold:0.3", "dequantise:0.1",
        "one-hot:colour,size". American spellings are understood.

        Raises
        ------
        DataError
            For an unknown name or an impossible parameter.
        """
        parts = text.split("+") if isinstance(text, str) else text
        parts = list(parts) if isinstance(parts, Iterable) else [parts]
        if not all(isinstance(part, str) for part in parts):
            raise DataError(
                f"transform is a name or a list of names, such as 'identity', and not {text!r:.60}."
            )
        if not parts:
            raise DataError("transform is an empty list: give at least one, such as 'identity'.")
        return cls([_parse_step(part) for part in parts])

    @property
    def names(self) -> list[str]:
        """The steps as a user writes them; ``parse`` understands this list."""
        return [step.text for step in self.steps]

    @property
    def layout(self) -> list[tuple[str, int]]:
        """What the output columns are, as blocks (kind, width)."""
        return list(self._fitted().layout)

    @property
    def column_names(self) -> tuple[str, ...]:
        """One name for each output column, or empty."""
        return self._fitted().names

    @property
    def n_features(self) -> int:
        """The number of output columns."""
        return self._fitted().width

    @property
    def noise(self) -> Float[Tensor, " m"]:
        """Standard deviation of the noise of "dequantise" in each output column, in its units, in float64."""
        self._fitted()
        assert self._input is not None
        sigma = torch.zeros(self._input.width, dtype=torch.float64)
        for step in self.steps:
            sigma = step.spread(sigma)
        return sigma

    def _fitted(self) -> Columns:
        if self._output is None:
            raise DataError(
                "this transform has not been fitted: call fit with training rows first."
            )
        return self._output

    def fit(self, chunks: Callable[[], Iterator[Tensor]], columns: Columns) -> Transform:
        """Learn what the steps need from training rows.

        Parameters
        ----------
        chunks : gives a fresh pass over the raw training rows, chunk by chunk.
        columns : what the raw columns are.

        Raises
        ------
        DataError
            If a step doesn't suit its columns, or text columns are left unencoded.
        """
        current = columns
        for done, step in enumerate(self.steps):
            step.learn(lambda done=done: self._partial(chunks(), done), current)
            current = step.bind(current)
        left = [i for i, kind in enumerate(current.kinds) if kind == "categorical"]
        if left:
            raise DataError(
                f"column {current.label(left[0])} is text, which {'+'.join(self.names)} leaves as "
                "it is: add the transform 'one-hot', or drop the column."
            )
        self._input, self._output = columns, current
        return self

    def _partial(self, chunks: Iterator[Tensor], done: int) -> Iterator[Tensor]:
        """``chunks`` after the first ``done`` steps, drawn from seed 0."""
        generator = Generator().manual_seed(0)
        for x in chunks:
            for step in self.steps[:done]:
                x = step.apply(x, generator)
            yield x

    def __call__(
        self,
        raw: Shaped[Tensor, "batch n"],
        generator: Generator | None = None,
        noisy: bool = True,
    ) -> Float[Tensor, "batch m"]:
        """The float32 rows of ``raw``; random steps draw from ``generator`` (on the same device).

        Without ``noisy`` the normal noise of "dequantise" is left out; bits are drawn all the same.

        Raises
        ------
        DataError
            If a random transform gets no generator, or values don't suit a step.
        """
        if self.random and (generator is None or generator.device.type != raw.device.type):
            raise DataError(
                f"the transform {'+'.join(self.names)} draws at each visit: pass it a "
                f"torch.Generator on the device '{raw.device.type}', where the rows are."
            )
        x = raw
        for step in self.steps:
            quiet = isinstance(step, Dequantise) and not noisy
            x = step.expected(x, generator) if quiet else step.apply(x, generator)
        return x.to(torch.float32)

    def expected(
        self, raw: Shaped[Tensor, "batch n"], generator: Generator | None = None
    ) -> Float[Tensor, "batch m"]:
        """The mean rows of ``raw`` over the draws of a random transform: probabilities for drawn bits.

        A random step that knows no mean draws from ``generator``, and so do steps after it.
        """
        x = raw
        for step in self.steps:
            x = step.expected(x, generator)
        return x.to(torch.float32)

    def inverse(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch n"]:
        """``x`` back in the units of the raw rows (grey levels, measured units, category codes).

        Noise and bits stay as drawn: the inverse of a bit or of its probability is black, white
        or grey in the raw units.
        """
        for step in reversed(self.steps):
            x = step.invert(x)
        return x

    def state(self) -> dict[str, Any]:
        """Everything fitted, as plain lists, numbers and strings for TOML or JSON."""
        self._fitted()
        assert self._input is not None
        steps = [{"step": step.text} | _learned(step) for step in self.steps]
        return {
            "steps": steps,
            "layout": [list(block) for block in self._input.layout],
            "names": list(self._input.names),
            "categories": [list(names) for names in self._input.categories],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Transform:
        """The fitted transform that ``state`` describes.

        Raises
        ------
        DataError
            If ``state`` is not one that ``Transform.state`` gave.
        """
        try:
            transform = cls.parse([entry["step"] for entry in state["steps"]])
            layout: Layout = tuple((str(kind), int(width)) for kind, width in state["layout"])
            categories = tuple(tuple(names) for names in state["categories"])
            columns = Columns(layout, tuple(state["names"]), categories)
            current = columns
            for step, entry in zip(transform.steps, state["steps"], strict=True):
                for name in step.learned:
                    _restore(step, name, entry[name])
                current = step.bind(current)
        except (KeyError, TypeError, IndexError) as error:
            raise DataError(
                f"the stored transform is incomplete ({error!r}): take the state from an intact "
                "run."
            ) from error
        transform._input, transform._output = columns, current
        return transform


def _learned(step: Step) -> dict[str, Any]:
    values = {name: getattr(step, name) for name in step.learned}
    return {k: v.tolist() if isinstance(v, Tensor) else v for k, v in values.items()}


def _restore(step: Step, name: str, value: Any) -> None:
    was = getattr(step, name)
    setattr(step, name, torch.tensor(value, dtype=was.dtype) if isinstance(was, Tensor) else value)


def _parse_step(text: str) -> Step:
    name, _, parameter = text.strip().partition(":")
    name = name.replace("ize", "ise").replace("onehot", "one-hot").replace("_", "-")
    if name not in _PLAIN:
        close = difflib.get_close_matches(name, _PLAIN, 1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise DataError(
            f"unknown transform '{name}': {hint}the transforms are {', '.join(transform_names())}."
        )
    if not parameter:
        return _PLAIN[name]()
    if name == "one-hot":
        return OneHot(tuple(part.strip() for part in parameter.split(",")))
    if name not in _NUMBER:
        raise DataError(f"the transform '{name}' takes no parameter, and got '{parameter}'.")
    try:
        number = float(parameter)
    except ValueError as error:
        raise DataError(
            f"the transform '{name}' takes a number after the colon, not '{parameter}'."
        ) from error
    return _NUMBER[name](number)


def raw_columns(
    chunks: Iterable[Tensor],
    width: int,
    names: tuple[str, ...] = (),
    categories: tuple[tuple[str, ...], ...] = (),
) -> tuple[Columns, bool]:
    """What raw training rows hold, and whether they are grey levels (uint8, or all in [0, 1]).

    The columns of a table (those with ``names``) are told apart; those of an array are of one kind.
    """
    binary, spin, grey = (torch.ones(width, dtype=torch.bool) for _ in range(3))
    for x in chunks:
        binary &= ((x == 0) | (x == 1)).all(0)
        if x.dtype == torch.bool:
            break
        spin &= ((x == -1) | (x == 1)).all(0) if x.dtype != torch.uint8 else False
        grey &= ((x >= 0) & (x <= 1)).all(0) if x.dtype != torch.uint8 else True
        if not names:  # arrays: one kind for all, and nothing more to learn once none is left
            binary, spin = (flags.all().expand(width).clone() for flags in (binary, spin))
            if not (binary.any() or spin.any()) and (x.dtype == torch.uint8 or not grey.all()):
                break
    kinds = ["binary" if b else "spin" if s else "real" for b, s in zip(binary, spin, strict=True)]
    for column, known in enumerate(categories):
        kinds[column] = "categorical" if known else kinds[column]
    layout = merged([(kind, 1) for kind in kinds])
    return Columns(layout, names, categories), bool(grey.all()) and not names


def automatic(columns: Columns, grey: bool) -> list[str]:
    """The transform that "auto" stands for.

    - all bits, or all spins: identity;
    - a table: one-hot for its text columns, then standardise for its real ones; yes/no columns
    stay;
    - an array of uint8, or of values in [0, 1]: stochastic-binarise;
    - any other array: standardise.
    """
    kinds = set(columns.kinds)
    if grey and "real" in kinds:
        return ["stochastic-binarise"]
    steps = ["one-hot"] * ("categorical" in kinds) + ["standardise"] * ("real" in kinds)
    return steps or ["identity"]
