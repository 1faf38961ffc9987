"""The lock of a run folder: one writer at a time, and free as soon as the writer is gone."""

import os
import sys
from contextlib import suppress
from io import FileIO
from pathlib import Path

from gibbsian import checkpoint
from gibbsian.errors import RunError

if sys.platform != "win32":
    import fcntl

NAME = ".lock"


def acquire(folder: Path) -> FileIO:
    """Lock a folder; keep the file open for as long as the lock is needed, then `release` it.

    The system holds the lock on the open file and frees it when the process ends, killed or not.
    The file's text, the number of the process, is for people. On Windows, and on a file system
    that knows no locks, nothing is locked.

    Raises
    ------
    RunError
        If the folder is locked already, or cannot be written.
    """
    path = folder / NAME
    while True:
        try:
            file = FileIO(path, "a+")
        except OSError as error:
            raise RunError(f"cannot write {path}: {checkpoint.explain(error)}.") from error
        if not _take(file):
            owner = _owner(file)
            file.close()
            raise RunError(
                f"{folder} is being trained by process {owner}; wait for it or stop it, or choose "
                "another folder."
            )
        if _is_current(file, path):
            with suppress(OSError):
                file.truncate(0)
                file.write(str(os.getpid()).encode())
            return file
        file.close()  # its owner removed it between our opening and locking it


def release(file: FileIO, folder: Path) -> None:
    """Give a lock back and remove its file, while it is still ours."""
    with suppress(OSError):
        (folder / NAME).unlink(missing_ok=True)
    file.close()


def _take(file: FileIO) -> bool:
    """Lock an open file; False if another has it."""
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True  # a file system without locks
    return True


def _owner(file: FileIO) -> str:
    file.seek(0)
    return file.read(20).decode(errors="replace").strip() or "another one"


def _is_current(file: FileIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False
