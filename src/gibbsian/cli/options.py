"""Options that several commands share, and how their texts are read."""

import re
from pathlib import Path
from typing import Annotated

import torch
import typer

from gibbsian.errors import GibbsianError
from gibbsian.trained import Trained, load

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
CheckpointName = Annotated[
    str, typer.Option("--checkpoint", help="'latest', or the number of updates of a checkpoint.")
]
Seed = Annotated[int, typer.Option(help="Seed of all randomness.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps, …")]
Threads = Annotated[int | None, typer.Option(help="CPU threads (all cores unless given).", min=1)]


def open_run(path: Path, checkpoint: str, device: str = "cpu") -> Trained:
    """Open a run, or raise one sentence that says why not."""
    return load(path, checkpoint, check_device(device))


def check_device(name: str) -> str:
    """Return the name of a device that is there.

    Raises
    ------
    GibbsianError
        If PyTorch knows no such device, or this machine has none.
    """
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError):
        raise GibbsianError(
            f"There is no device {name!r} on this machine; use --device cpu."
        ) from None
    return name


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


def whole_numbers(text: str, option: str) -> list[int]:
    """Read ``10,20,50`` as a list.

    Raises
    ------
    GibbsianError
        If a part is no whole number.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise GibbsianError(
            f"{option} takes whole numbers such as 10,20,50, not {text!r}."
        ) from None


def amount(text: str | None, option: str) -> float | int | str | None:
    """Read a share below 1, a count, or a path.

    Raises
    ------
    GibbsianError
        If a number is negative.
    """
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        return text
    if value < 0:
        raise GibbsianError(f"{option} takes a share, a count or a file, not {text}.")
    return value if value < 1 else int(value)


def table(text: list[str] | None, option: str) -> dict[str, object]:
    """Read ``key=value`` pairs; values are numbers, true, false, or words.

    Raises
    ------
    GibbsianError
        If there is no equals sign.
    """
    out: dict[str, object] = {}
    for pair in text or []:
        key, equals, value = pair.partition("=")
        if not equals:
            raise GibbsianError(f"{option} takes pairs such as momentum=0.9, not {pair!r}.")
        out[key] = _value(value)
    return out


def _value(text: str) -> object:
    words = {"true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
