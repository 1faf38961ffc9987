"""Checkpoints: atomic, verified by checksum, and never unpickled.

A checkpoint of step 500 is two files: ``step-000000500-<hash>.safetensors`` holds the tensors and
``step-000000500.json`` everything else, with the size and SHA-256 of the first and of itself. The
JSON comes last, so a checkpoint exists if and only if its JSON does. One writer a folder.
"""

import errno
import hashlib
import json
import os
import re
import warnings
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from gibbsian.errors import GibbsianWarning, RunError, TrainingError
from gibbsian.packing import pack, unpack

FORMAT = 1
_JSON = re.compile(r"step-(\d{9,})\.json")
_DATA = re.compile(r"step-(\d{9,})-[0-9a-f]{12}\.safetensors")
_TEMPORARY = re.compile(r"\..+\.writing")


@dataclass(frozen=True)
class Checkpoint:
    """What was read back.

    Attributes
    ----------
    step : int
        Number of parameter updates done when it was written.
    tree : Any
        The nested state as it was given to `write`; its tensors are new ones on the CPU.
    path : Path
        The JSON file of the checkpoint.
    """

    step: int
    tree: Any
    path: Path


def publish(files: Mapping[Path, bytes]) -> None:
    """Write files so that each is either wholly there or not at all, in the order given.

    All are written to temporary names and flushed to disk before the first gets its own name, so
    a full disk changes nothing. The folders must exist.

    Raises
    ------
    RunError
        If the disk or folder refuses; nothing temporary is left, and no file is half written.
    """
    waiting = {path: path.with_name(f".{path.name}.{os.getpid()}.writing") for path in files}
    path = None
    try:
        for path, content in files.items():
            with open(waiting[path], "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path in files:
            os.replace(waiting[path], path)
        for folder in {path.parent for path in files}:
            _settle(folder)
    except OSError as error:
        raise RunError(f"cannot write {path}: {explain(error)}.") from error
    finally:
        for temporary in waiting.values():
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _settle(folder: Path) -> None:
    """Flush a folder's entries to disk, where the system can do that for a folder."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM):
            raise


def explain(error: OSError) -> str:
    """Say in words what the system refused and what to do about it."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{reason}; free some space, then resume the run"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{reason}; change its permissions or choose another folder"
    return f"{reason}; check the folder or choose another one"


def write(
    folder: str | os.PathLike[str],
    step: int,
    tree: Any,
    *,
    keep_last: int = 3,
    keep_every: int | None = None,
    keep: Collection[int] = (),
) -> Path:
    """Write a checkpoint atomically, then remove the ones no longer wanted.

    Parameters
    ----------
    folder
        Where the checkpoints of one run live; made if it is not there.
    step : int
        Number of parameter updates done; a checkpoint of the same step is replaced.
    tree
        The state, as `pack` takes it.
    keep_last : int
        How many of the newest checkpoints stay, at least one.
    keep_every : int, optional
        Those whose step is a multiple of this number stay too.
    keep : collection of int
        Steps that stay whatever the other two say.

    Returns
    -------
    Path
        The JSON file of the new checkpoint.

    Raises
    ------
    RunError
        If it cannot be written: older checkpoints are left alone and nothing half written stays.
    TrainingError
        If the tree holds something that is not resumable, or a setting is impossible.
    """
    if step < 0 or keep_last < 1 or (keep_every is not None and keep_every < 1):
        raise TrainingError(
            f"a checkpoint needs step >= 0, keep_last >= 1 and keep_every >= 1, not {step}, "
            f"{keep_last} and {keep_every}."
        )
    folder = Path(folder)
    tensors, structure = pack(tree)
    data = safetensors.torch.save(tensors)
    digest = hashlib.sha256(data).hexdigest()
    body = {
        "format": FORMAT,
        "step": step,
        "tensors": {
            "file": f"step-{step:09d}-{digest[:12]}.safetensors",
            "bytes": len(data),
            "sha256": digest,
        },
        "structure": structure,
    }
    sealed = json.dumps({"checkpoint": body, "sha256": _seal(body)}, indent=1, allow_nan=False)
    data_path = folder / body["tensors"]["file"]
    json_path = folder / f"step-{step:09d}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
    except OSError as error:
        raise RunError(f"cannot write into {folder}: {explain(error)}.") from error
    publish({data_path: data, json_path: sealed.encode()})
    for replaced in set(folder.glob(f"step-{step:09d}-*.safetensors")) - {data_path}:
        _remove(replaced)
    known = steps(folder)
    wanted = {step, *keep, *known[-keep_last:]}
    for old in known:
        if old not in wanted and not (keep_every and old % keep_every == 0):
            drop(folder, old)
    return json_path


def _seal(body: dict[str, Any]) -> str:
    """Give the checksum of the JSON half: of its content, so that it does not depend on layout."""
    return hashlib.sha256(json.dumps(body, separators=(",", ":")).encode()).hexdigest()


def _sweep(folder: Path) -> None:
    """Remove what killed processes left: temporary files, and tensors that no JSON asks for."""
    remove_temporary(folder)
    names = set(os.listdir(folder))
    by_step: dict[str, list[str]] = {}
    for name in names:
        if found := _DATA.fullmatch(name):
            by_step.setdefault(found[1], []).append(name)
    for step, candidates in by_step.items():
        owner = f"step-{step}.json"
        if owner not in names:
            kept = None
        elif len(candidates) == 1:
            continue
        else:
            try:
                kept = _body(folder / owner)["tensors"]["file"]
            except RunError:  # a damaged JSON does not tell which of them is its own
                continue
        for name in candidates:
            if name != kept:
                _remove(folder / name)


def remove_temporary(folder: str | os.PathLike[str]) -> None:
    """Remove the temporary files that killed processes left in a folder with one writer."""
    for name in os.listdir(folder):
        if is_temporary(name):
            _remove(Path(folder, name))


def is_temporary(name: str) -> bool:
    """Tell whether a file name is one that `publish` uses while it writes."""
    return _TEMPORARY.fullmatch(name) is not None


def _remove(path: Path) -> None:
    with suppress(OSError):  # cleaning up is no reason to stop a training
        path.unlink(missing_ok=True)


def drop(folder: str | os.PathLike[str], step: int) -> None:
    """Remove the checkpoint of a step, the JSON first so that no half of it counts as one."""
    folder = Path(folder)
    _remove(folder / f"step-{step:09d}.json")
    for path in folder.glob(f"step-{step:09d}-*.safetensors"):
        _remove(path)


def steps(folder: str | os.PathLike[str]) -> list[int]:
    """List the steps that have a checkpoint, in order; none for a folder that is not there."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"cannot list {folder}: {explain(error)}.") from error
    return sorted(int(found[1]) for name in names if (found := _JSON.fullmatch(name)))


def read(path: str | os.PathLike[str], step: int | None = None) -> Checkpoint:
    """Read one checkpoint and verify it.

    Parameters
    ----------
    path
        The JSON file of a checkpoint; or, with `step`, the folder that holds it.
    step : int, optional
        Which one of the folder.

    Raises
    ------
    RunError
        If it is not there, was truncated or altered, or has lost a half; the sentence names the
        file.
    """
    path = Path(path)
    if step is not None:
        known = steps(path)
        if step not in known:
            there = f"the steps there are {', '.join(map(str, known))}" if known else "it has none"
            raise RunError(f"{path} has no checkpoint of step {step}; {there}.")
        path = path / f"step-{step:09d}.json"
    body = _body(path)
    tensors = _tensors(path.with_name(body["tensors"]["file"]), body["tensors"])
    return Checkpoint(body["step"], unpack(tensors, body["structure"]), path)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise RunError(f"{path} is missing; use another checkpoint of the run.") from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {explain(error)}.") from error


def _damaged(path: Path, how: str) -> RunError:
    return RunError(f"{path} is damaged ({how}); use another checkpoint of the run.")


def _body(path: Path) -> dict[str, Any]:
    """Read and verify the JSON half."""
    content = _bytes(path)
    try:
        sealed = json.loads(content)
        body, seal = sealed["checkpoint"], sealed["sha256"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _damaged(path, "it is not the JSON of a checkpoint") from error
    if _seal(body) != seal:
        raise _damaged(path, "its checksum does not match")
    if body["format"] != FORMAT:
        raise RunError(
            f"{path} has checkpoint format {body['format']} and this version of gibbsian reads "
            f"{FORMAT}; read it with the version that wrote it."
        )
    return body


def _tensors(path: Path, entry: dict[str, Any]) -> dict[str, Tensor]:
    """Read and verify the tensor half."""
    data = _bytes(path)
    if len(data) != entry["bytes"]:
        raise _damaged(path, f"{len(data):,} bytes where {entry['bytes']:,} were written")
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise _damaged(path, "its checksum does not match")
    try:
        loaded = safetensors.torch.load(data)
    except SafetensorError as error:
        raise _damaged(path, "it is not a safetensors file") from error
    # A copy has the alignment of any other tensor: sums run in the same order after a resume.
    return {name: tensor.clone() for name, tensor in loaded.items()}


def latest(folder: str | os.PathLike[str]) -> Checkpoint:
    """Read the newest checkpoint that verifies.

    Warns
    -----
    GibbsianWarning
        For each damaged one that was passed over, naming its file.

    Raises
    ------
    RunError
        If none is left.
    """
    known = steps(folder)
    for step in reversed(known):
        try:
            return read(folder, step)
        except RunError as error:
            warnings.warn(f"step {step} passed over: {error}", GibbsianWarning, stacklevel=2)
    if known:
        raise RunError(f"all {len(known)} checkpoints in {folder} are damaged; train again.")
    raise RunError(f"{folder} has no checkpoint yet; let a training reach its first one.")
