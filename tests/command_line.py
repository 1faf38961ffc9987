"""Calls the command line as a user does, in this process."""

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from gibbsian.cli import main


@dataclass(frozen=True)
class Outcome:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def notes(self) -> list[str]:
        """The warnings on standard error."""
        return [x for x in self.err.splitlines() if x.startswith("gibbsian: note: ")]

    @property
    def sentence(self) -> str:
        """The one line that says what went wrong, after checks that it is one, and the only one."""
        (line,) = [x for x in self.err.splitlines() if x not in self.notes]
        assert line.startswith("gibbsian: ")
        assert line.endswith((".", "!", "?"))
        assert "Traceback" not in self.err
        assert self.code not in (0, None)
        return line


@contextlib.contextmanager
def _argv(arguments: list[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, ["gibbsian", *arguments]
    try:
        yield
    finally:
        sys.argv = before


def call(*arguments: object) -> Outcome:
    """Run `gibbsian` with these arguments."""
    out, err = io.StringIO(), io.StringIO()
    with (
        _argv([str(a) for a in arguments]),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        warnings.simplefilter("default")
        try:
            main()
        except SystemExit as end:
            return Outcome(int(end.code or 0), out.getvalue(), err.getvalue())
    raise AssertionError("main ends with an exit code, and did not")


def works(*arguments: object) -> Outcome:
    """Run `gibbsian` and expect success without a word on standard error but notes."""
    found = call(*arguments)
    assert found.code == 0, found.err
    assert all(line in found.notes for line in found.err.splitlines()), found.err
    return found
