"""Options that several commands share, and how their texts are read.

What needs PyTorch is imported inside functions here and in the commands, so that help comes at once.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gibbsian.errors import GibbsianError

if TYPE_CHECKING:
    from gibbsian.data import Dataset
    from gibbsian.data.dataset import Split
    from gibbsian.machine import BoltzmannMachine
    from gibbsian.trained import Trained
    from gibbsian.trajectory import Trajectory

_SEEDS = 2**31
_SPLITS = ("train", "validation", "test")


def _check_seed(seed: int) -> int:
    if not 0 <= seed < _SEEDS:
        raise GibbsianError(f"--seed takes a whole number from 0 to {_SEEDS - 1}, not {seed}.")
    return seed


RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
CheckpointName = Annotated[
    str,
    typer.Option(
        "--checkpoint", help="Which one: latest, or its number of updates.", metavar="STEP"
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of all randomness.", callback=_check_seed)]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps, …")]
# What `--sampler-option` takes, in help.
SAMPLER_OPTIONS = (
    "langevin, gibbs-langevin: size, adjusted, hidden, moves, scaled; driven: std, momentum, steps; rates: "
    "rate, decay, shared, statistics; samplers on a ladder: sweeps."
)
Precision = Annotated[str, typer.Option(help="Of the chains' products: fp32, bf16 or auto.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress bar.")]


def rows_of(data: "Dataset", split: str, option: str) -> "Split":
    """Return a part of the data by its name.

    Raises
    ------
    GibbsianError
        If there is no such part.
    """
    if split not in _SPLITS:
        raise GibbsianError(f"{option} takes {', '.join(_SPLITS)}, not {split!r}.")
    found = getattr(data, split)
    if found is None or not len(found):
        raise GibbsianError(
            f"This run keeps no {split} rows; take others with {option}, or train with --{split} 0.1."
        )
    return found


def trajectory(trained: "Trained", seed: int) -> "Trajectory":
    """Return a run's trajectory up to its machine, its levels placed for swaps of equal acceptance.

    Raises
    ------
    GibbsianError
        If the run kept none.
    """
    from gibbsian import trajectory as kept

    return kept.load(trained, trained.step).to(trained.machine).refined(generator=seed)


def check_memory(machine: "BoltzmannMachine", chains: int, option: str, frames: int = 0) -> None:
    """Refuse more chains than fit into the free memory by their states, with `frames` of them kept besides.

    What a sampler keeps of them in addition, it counts itself.

    Raises
    ------
    GibbsianError
        With both sizes.
    """
    from gibbsian import memory
    from gibbsian.samplers.base import COPIES

    numbers = chains * (COPIES * sum(machine.sizes) + 2 * frames * machine.sizes[0])
    memory.check(next(machine.parameters()), numbers, f"{chains:,} chains", f"lower {option}")


def output_file(path: Path, *suffixes: str, option: str = "--out") -> Path:
    """Return the path of a file that is to be written, its folder made.

    Raises
    ------
    GibbsianError
        If the ending is none of `suffixes`, or there can be no such file.
    """
    if path.suffix.lower() not in suffixes:
        known = " or ".join(suffixes)
        raise GibbsianError(f"{option} takes a file that ends in {known}, not {str(path)!r}.")
    if path.is_dir():
        raise GibbsianError(f"{option} names the folder {path}; give a file in it.")
    output_folder(path.parent, option)
    return path


def output_folder(path: Path, option: str = "--out") -> Path:
    """Return the path of a folder that is to be written into, made if it is not there.

    Raises
    ------
    GibbsianError
        If it cannot be made or written into.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "a file is in the way" if isinstance(error, FileExistsError) else error.strerror
        raise GibbsianError(
            f"The folder {path} cannot be made ({reason}); choose another place with {option}."
        ) from None
    if not os.access(path, os.W_OK):
        raise GibbsianError(
            f"The folder {path} cannot be written to; choose another place with {option}."
        )
    return path


def span(text: str | None, option: str) -> slice | None:
    """Read ``10:17`` (or a single ``10``) as a slice.

    Raises
    ------
    GibbsianError
        If it is neither.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d*):(\d*)|(\d+)", text.strip())
    if not found:
        raise GibbsianError(f"{option} takes a range such as 10:17, not {text!r}.")
    low, high, single = found.groups()
    if single is not None:
        return slice(int(single), int(single) + 1)
    return slice(int(low) if low else None, int(high) if high else None)


def counts(text: str, option: str) -> list[int]:
    """Read ``10,20,50`` as a list of numbers of at least 1.

    Raises
    ------
    GibbsianError
        If a part is no such number, or comes twice.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise GibbsianError(f"{option} takes positive numbers such as 10,20,50, not {text!r}.")
    numbers = [int(part) for part in parts]
    if len(set(numbers)) < len(numbers):
        raise GibbsianError(f"{option} names a number twice in {text!r}; give each once.")
    return numbers


def sizes(text: str, option: str) -> int | list[int]:
    """Read ``500`` as a number, and ``500,1000`` as a list: the sizes of hidden layers from below.

    Raises
    ------
    GibbsianError
        If a part is no whole number of at least 1.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and int(part) > 0 for part in parts):
        raise GibbsianError(
            f"{option} takes numbers of hidden units such as 500, or 500,1000 for two layers, not {text!r}."
        )
    numbers = [int(part) for part in parts]
    return numbers[0] if len(numbers) == 1 else numbers


def amount(text: str) -> float | int | str:
    """Read a share, a count, or else a path; the data judge whether it is possible."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def table(text: list[str], option: str, example: str = "momentum=0.9") -> dict[str, object]:
    """Read ``key=value`` pairs; values are numbers, true, false, or words.

    Raises
    ------
    GibbsianError
        If there is no equals sign.
    """
    out: dict[str, object] = {}
    for pair in text:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise GibbsianError(f"{option} takes pairs such as {example}, not {pair!r}.")
        out[key] = _value(value)
    return out


def _value(text: str) -> object:
    words = {"true": True, "false": False}
    return words.get(text.lower(), amount(text))
