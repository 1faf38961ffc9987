"""The command line: each command parses, calls the library, and prints."""

import io
import os
import sys
import warnings
from typing import Any, NoReturn

from gibbsian.errors import GibbsianError, GibbsianWarning

_MEMORY = "There is not enough memory for this; ask for fewer chains, rows or hidden units."
_STOPPED = "Stopped by you; a run keeps its newest checkpoint and goes on with --resume."
_INTERRUPTED, _BROKEN_PIPE = 130, 141  # 128 + the signal's number, as shells have it


def main() -> None:
    """Run the command line; a mistake ends in one sentence and an exit code other than 0."""
    warnings.showwarning = _one_line
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without the letters gets "?"
    try:
        code = _run()
        sys.stdout.flush()
    except GibbsianError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail(_STOPPED, _INTERRUPTED)
    except BrokenPipeError:
        _drop_output()
        raise SystemExit(_BROKEN_PIPE) from None
    except MemoryError:
        _fail(_MEMORY)
    except RuntimeError as error:
        if "out of memory" in str(error) or "allocate memory" in str(error):
            _fail(_MEMORY)
        raise
    except OSError as error:
        _drop_output()
        where = f" {error.filename}" if error.filename else ""
        reason = error.strerror or error
        _fail(f"The file system refused{where}: {reason}; free space or choose another place.")
    if code == _INTERRUPTED:
        _fail(_STOPPED, _INTERRUPTED)
    raise SystemExit(code)


def _run() -> int:
    """Parse and obey; return the exit code."""
    import typer

    from gibbsian.cli.app import app

    # Typer names the base of its usage errors nowhere, and its own page for them is long.
    usage_error: type[Exception] = typer.BadParameter.__bases__[0]
    bare = len(sys.argv) < 2  # help is shown, and since nothing was done the code says so
    try:
        words = ["--help"] if bare else _spelled(sys.argv[1:])
        code = app(words, prog_name="gibbsian", standalone_mode=False) or 0
        return 2 if bare else code
    except typer.Abort:
        return _INTERRUPTED
    except usage_error as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "gibbsian"
        what = error.format_message().rstrip(".").replace(". Did", "; did")  # pyright: ignore[reportAttributeAccessIssue]
        raise GibbsianError(f"{what} (see {command} --help).") from None


def _spelled(arguments: list[str]) -> list[str]:
    """Give a bare ``--labels`` an empty text, since Typer has no options with a value or without."""
    following = [*arguments[1:], "-"]
    return [
        "--labels=" if word == "--labels" and after.startswith("-") else word
        for word, after in zip(arguments, following, strict=True)
    ]


def _fail(sentence: str, code: int = 2) -> NoReturn:
    print(f"gibbsian: {sentence}", file=sys.stderr)
    raise SystemExit(code)


def _drop_output() -> None:
    """Let nobody try again at exit to write what standard output refused."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(
    message: Any, category: type[Warning], filename: str, lineno: int,
    file: Any = None, line: str | None = None,
) -> None:  # fmt: skip
    """Print our own warnings as one line; leave others out of a user's sight."""
    if issubclass(category, GibbsianWarning):
        print(f"gibbsian: note: {message}", file=sys.stderr)
