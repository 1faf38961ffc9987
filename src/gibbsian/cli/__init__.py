"""The command line: each command parses, calls the library, and prints."""

import sys
import warnings
from typing import Any

from gibbsian.errors import GibbsianError, GibbsianWarning


def main() -> None:
    """Run the command line; a mistake ends in one sentence and an exit code other than 0."""
    from gibbsian.cli.app import app

    warnings.showwarning = _one_line
    try:
        app(standalone_mode=True)
    except GibbsianError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("Stopped by you; a run keeps its newest checkpoint and resumes with --resume.", 130)
    except MemoryError:
        _fail("There is not enough memory for this; ask for fewer chains, rows or hidden units.")
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        _fail(
            f"The file system refused{where}: {error.strerror or error}; free space or choose another place."
        )


def _fail(sentence: str, code: int = 2) -> None:
    print(f"gibbsian: {sentence}", file=sys.stderr)
    raise SystemExit(code)


def _one_line(
    message: Any, category: type[Warning], filename: str, lineno: int,
    file: Any = None, line: str | None = None,
) -> None:  # fmt: skip
    """Print our own warnings as one line; leave others out of a user's sight."""
    if issubclass(category, GibbsianWarning):
        print(f"gibbsian: note: {message}", file=sys.stderr)
