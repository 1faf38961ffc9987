"""A run is a folder: ``config.toml``, ``metrics.jsonl``, ``checkpoints/``, maybe ``trajectory/``; one writer.

``config.toml`` is written last, so a folder is a run if and only if it has one.
"""

import json
import math
import os
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from gibbsian import checkpoint, lock
from gibbsian.checkpoint import Checkpoint
from gibbsian.errors import GibbsianWarning, RunError, TrainingError

_CONFIG, _METRICS, _CHECKPOINTS = "config.toml", "metrics.jsonl", "checkpoints"
_REPORT, _TRAJECTORY = "report.html", "trajectory"


class Run:
    """One run folder; make it with `create` or `open_run`.

    Reading needs nothing. Whatever writes takes the folder's lock first and keeps it until
    `close`, or until the process ends in whatever way, so that two trainings never write one run.
    (On Windows no lock is taken.)

    Attributes
    ----------
    path : Path
        The folder.
    config : dict
        What ``config.toml`` holds.
    """

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path = path
        self.config = config
        self._lock: FileIO | None = None
        self._log: FileIO | None = None

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def checkpoint_folder(self) -> Path:
        """The folder that `gibbsian.checkpoint.write` is given."""
        return self.path / _CHECKPOINTS

    @property
    def trajectory_folder(self) -> Path:
        """The folder of the machines that `gibbsian.trajectory.load` reads."""
        return self.path / _TRAJECTORY

    @property
    def checkpoints(self) -> list[int]:
        """The steps that have a checkpoint, in order."""
        return checkpoint.steps(self.checkpoint_folder)

    def checkpoint(self, which: int | str = "latest") -> Checkpoint:
        """Read a checkpoint: the newest that verifies, or the one of a step.

        Raises
        ------
        RunError
            If there is none, if it is damaged, or if `which` is neither "latest" nor a step.
        """
        if which == "latest":
            return checkpoint.latest(self.checkpoint_folder)
        if isinstance(which, str) and not which.isdecimal():
            raise RunError(f"no checkpoint is called {which!r}; give 'latest' or a step number.")
        return checkpoint.read(self.checkpoint_folder, int(which))

    def metrics(self) -> list[dict[str, Any]]:
        """Read the records of ``metrics.jsonl``, oldest first; a torn last line is left out.

        Warns
        -----
        GibbsianWarning
            For any other line that is not a record, naming its number.
        """
        records = []
        for number, line, record in self._lines():
            if record is not None:
                records.append(record)
            elif line.endswith(b"\n"):
                warnings.warn(
                    f"line {number} of {self.path / _METRICS} is not a record and was left out",
                    GibbsianWarning,
                    stacklevel=2,
                )
        return records

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one record to ``metrics.jsonl`` as one line, and hand it to the system at once.

        Parameters
        ----------
        record
            Numbers, strings, bools, None, and lists and dicts of them; zero-dimensional tensors
            and NumPy scalars count as numbers. JSON has no word for a float that is not finite:
            it becomes null, and its key joins the list ``"nonfinite"`` of the line.

        Raises
        ------
        TrainingError
            If a value is anything else.
        RunError
            If the file cannot be written, or another process trains this run.
        """
        nonfinite: list[str] = []
        plain = {str(key): _number(value, str(key), nonfinite) for key, value in record.items()}
        if nonfinite:
            plain["nonfinite"] = nonfinite
        line = json.dumps(plain, allow_nan=False).encode() + b"\n"
        file = self._open_log()
        start = file.seek(0, os.SEEK_END)
        try:
            written = 0
            while written < len(line):
                written += file.write(line[written:]) or 0
        except OSError as error:
            with suppress(OSError):
                file.truncate(start)
            raise _refused(self.path / _METRICS, error) from error

    def cut(self, step: int) -> None:
        """Go back to a step, as a resume does.

        Records of ``metrics.jsonl`` whose ``"step"`` lies after it are cut, and so are lines that
        are no records, such as the torn last one of a killed process; the file is replaced
        atomically. Checkpoints and machines of the trajectory after it, which belong to a future that is
        given up, are removed.

        Raises
        ------
        RunError
            If the folder cannot be written, or another process trains this run.
        """

        def after(record: dict[str, Any]) -> bool:
            at = record.get("step")
            return isinstance(at, int | float) and at > step

        self.lock()
        self._close_log()
        lines = list(self._lines())
        kept = [line for _, line, record in lines if record is not None and not after(record)]
        if len(kept) < len(lines):
            checkpoint.publish({self.path / _METRICS: b"".join(kept)})
        for folder in (self.checkpoint_folder, self.trajectory_folder):
            for later in checkpoint.steps(folder):
                if later > step:
                    checkpoint.drop(folder, later)

    def lock(self) -> None:
        """Take the writer's lock of the folder, unless it is held already.

        The lock of a process that died is free. ``.lock`` names the process that has it.

        Raises
        ------
        RunError
            If another process, or another `Run` of this one, has it.
        """
        if self._lock is None:
            self._lock = lock.acquire(self.path)
            with suppress(OSError):
                checkpoint.remove_temporary(self.path)

    def close(self) -> None:
        """Close the log and give the lock back; the run can be used again afterwards."""
        self._close_log()
        if self._lock is not None:
            lock.release(self._lock, self.path)
            self._lock = None

    def _close_log(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    def _open_log(self) -> FileIO:
        """Open ``metrics.jsonl`` for appending, without a line that a killed process left torn."""
        if self._log is None:
            self.lock()
            path = self.path / _METRICS
            try:
                torn = [line for _, line, _ in self._lines() if not line.endswith(b"\n")]
                if torn:
                    os.truncate(path, path.stat().st_size - len(torn[0]))
                self._log = FileIO(path, "a")
            except OSError as error:
                raise _refused(path, error) from error
        return self._log

    def _lines(self) -> Iterator[tuple[int, bytes, dict[str, Any] | None]]:
        """Go through ``metrics.jsonl``: number, line, and its record or None if it holds none."""
        path = self.path / _METRICS
        try:
            with open(path, "rb") as file:
                for number, line in enumerate(file, 1):
                    yield number, line, _record(line)
        except FileNotFoundError:
            return
        except OSError as error:
            raise RunError(f"cannot read {path}: {checkpoint.explain(error)}.") from error


def create(
    path: str | os.PathLike[str], config: Mapping[str, Any], *, overwrite: bool = False
) -> Run:
    """Make a run folder and take its lock.

    Parameters
    ----------
    path
        A folder that is empty or not there yet; or, with `overwrite`, one that holds a run.
    config
        Everything needed to repeat the run, as `plain_config` takes it.
    overwrite : bool
        Remove the configuration, metrics, checkpoints, trajectory and report of the run that is there. Other
        files stay, and a folder that is not a run is never touched.

    Raises
    ------
    RunError
        If the folder holds a run and `overwrite` is not given, holds anything else, is being
        trained, or cannot be written.
    TrainingError
        If the configuration holds a value that TOML cannot.
    """
    path = Path(path)
    plain = plain_config(config)
    run = Run(path, plain)
    with ExitStack() as on_failure:
        on_failure.callback(run.close)
        try:
            _check_vacant(path, overwrite)
            path.mkdir(parents=True, exist_ok=True)
            run.lock()
            _check_vacant(path, overwrite)  # another may have made a run before we had the lock
            (path / _REPORT).unlink(missing_ok=True)
            for folder in (run.checkpoint_folder, run.trajectory_folder):
                for step in checkpoint.steps(folder):
                    checkpoint.drop(folder, step)
            run.checkpoint_folder.mkdir(exist_ok=True)
        except OSError as error:
            raise _refused(path, error) from error
        checkpoint.publish({path / _METRICS: b"", path / _CONFIG: _toml(plain)})
        on_failure.pop_all()
    return run


def _check_vacant(path: Path, overwrite: bool) -> None:
    """Refuse a folder that holds anything but, where it may be overwritten, a run."""
    present = list(path.iterdir()) if path.exists() else []
    if any(entry.name == _CONFIG for entry in present):
        if overwrite:
            return
        raise RunError(
            f"{path} already holds a run; resume it, overwrite it (--overwrite), or choose another folder."
        )
    if not all(map(_is_blank, present)):
        raise RunError(
            f"{path} is not empty and is not a gibbsian run; choose another folder for the run."
        )


def _is_blank(entry: Path) -> bool:
    """Tell whether a `create` that was killed can have left this: nothing that anyone misses."""
    if entry.name == _METRICS:
        return entry.stat().st_size == 0
    if entry.name == _CHECKPOINTS:
        return entry.is_dir() and not any(entry.iterdir())
    return entry.name == lock.NAME or checkpoint.is_temporary(entry.name)


def is_run(path: str | os.PathLike[str]) -> bool:
    """Tell whether a folder is a run."""
    return (Path(path) / _CONFIG).is_file()


def open_run(path: str | os.PathLike[str]) -> Run:
    """Open a run folder, to read it or to go on with it.

    Raises
    ------
    RunError
        If the folder is not a run, or its ``config.toml`` cannot be read.
    """
    path = Path(path)
    file = path / _CONFIG
    try:
        config = tomllib.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        why = f"no {_CONFIG}" if path.is_dir() else "there is no such folder"
        raise RunError(
            f"{path} is not a gibbsian run: {why}; give a folder made by `gibbsian train`."
        ) from None
    except OSError as error:
        raise RunError(f"cannot read {file}: {checkpoint.explain(error)}.") from error
    except ValueError as error:  # TOML's own error and a bad encoding are both one
        raise RunError(
            f"{file} is not valid TOML ({error}); mend that line, or train again."
        ) from error
    return Run(path, config)


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a configuration into what TOML holds and gives back unchanged.

    Values of None are left out (TOML has no word for them: what is absent is not set), tuples
    become lists, paths become strings, NumPy scalars and zero-dimensional tensors numbers.

    Raises
    ------
    TrainingError
        If a value is anything else; the sentence names it.
    """
    return _table(config, "")


def _table(table: Mapping[Any, Any], where: str) -> dict[str, Any]:
    for key in table:
        if not isinstance(key, str):
            raise TrainingError(f"the setting {where}{key!r} needs a name that is a string.")
    return {
        key: _plain(value, f"{where}{key}") for key, value in table.items() if value is not None
    }


def _plain(value: Any, where: str) -> Any:
    value = _scalar(value)
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return _table(value, f"{where}.")
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise TrainingError(
        f"the setting {where} is {value!r:.60}, of type {type(value).__name__}, which "
        f"{_CONFIG} cannot hold; give numbers, strings, lists or tables."
    )


def _toml(config: dict[str, Any]) -> bytes:
    import tomli_w

    return tomli_w.dumps(config).encode()


def _scalar(value: Any) -> Any:
    """Turn a zero-dimensional tensor or a NumPy scalar into the Python number that it holds."""
    return value.item() if getattr(value, "shape", None) == () else value


def _number(value: Any, where: str, nonfinite: list[str]) -> Any:
    """Turn a value into what JSON holds, noting where a float was not finite."""
    value = _scalar(value)
    if isinstance(value, float) and not math.isfinite(value):
        nonfinite.append(where)
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(k): _number(v, f"{where}.{k}", nonfinite) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_number(item, f"{where}.{i}", nonfinite) for i, item in enumerate(value)]
    raise TrainingError(
        f"the metric {where} is of type {type(value).__name__}; log numbers, strings, lists or "
        "dicts of them."
    )


def _record(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _refused(path: Path, error: OSError) -> RunError:
    return RunError(f"cannot write {path}: {checkpoint.explain(error)}.")
