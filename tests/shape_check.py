"""The run-time check that conftest switches on: beartype, for which an int is a float too."""

import functools
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))

# How many calls of a function each test has checked. Later ones are repeats, and a check costs tenfold.
CALLS = 8
_made: dict[CodeType, int] = {}
_eager = jaxtyping.jaxtyped


def start() -> None:
    """Begin a test: the first calls of every function are checked again."""
    _made.clear()


def jaxtyped(fn: Any = None, *, typechecker: Any) -> Any:
    """Check the first calls of a function in each test; what is never called is never compiled.

    The import hook asks for this in place of `jaxtyping.jaxtyped`, which compiles two functions for
    every one of the package and checks every call.
    """
    if fn is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if not isinstance(fn, FunctionType):  # a dataclass
        return _eager(fn, typechecker=typechecker)
    checked: Callable | None = None
    code = fn.__code__  # shared by the copies of a function that another one defines

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal checked
        calls = _made.get(code, 0)
        if calls >= CALLS:
            return fn(*args, **kwargs)
        _made[code] = calls + 1
        if checked is None:
            checked = _eager(fn, typechecker=typechecker)
        return checked(*args, **kwargs)

    return call
