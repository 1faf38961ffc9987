"""Compiled CPU kernels, kept on disk: a process loads one in a tenth of a second, without numba.

numba translates a kernel of `compiled` into LLVM's language, for this very processor, and LLVM makes
machine code of it. The machine code is kept in a file named after everything that it depends on.
"""

import ctypes
import hashlib
import importlib.metadata
import inspect
import os
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

_SOURCES = sorted(Path(__file__).with_name("compiled").glob("*.py"))


@cache
def address(name: str) -> int:
    """Return the address of a kernel, from the cache or compiled now (a few seconds).

    Raises
    ------
    Exception
        Whatever numba or llvmlite raise where they do not work.
    """
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    _stand_in(llvm)
    path = _folder() / f"{name}-{_fingerprint(llvm)}.o"
    code = _read(path)
    if code is None:
        code = _compile(name, llvm)
        _write(path, code)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine(llvm))
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _kept.append(engine)
    return engine.get_function_address(_symbol(name))


# An engine owns the memory of its code.
_kept: list[Any] = []


def _stand_in(llvm: Any) -> None:
    """Give the runtime functions of numba an address where numba is not imported.

    The wrapper that numba puts around a kernel calls them to report an exception, and no kernel raises
    one.
    """
    unreachable = ctypes.cast(ctypes.pythonapi.Py_FatalError, ctypes.c_void_p).value
    for symbol in ("NRT_MemInfo_call_dtor", "numba_gil_ensure", "numba_gil_release"):
        if llvm.address_of_symbol(symbol) is None:
            llvm.add_symbol(symbol, unreachable)


def _symbol(name: str) -> str:
    return f"gibbsian_{name}"


def _machine(llvm: Any) -> Any:
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3,
        reloc="default", codemodel="jitdefault", jit=True,
    )  # fmt: skip


def _compile(name: str, llvm: Any) -> bytes:
    """Translate a kernel with numba and return its machine code as an object file."""
    from numba import cfunc, types

    from gibbsian.kernels.compiled import KERNELS
    from gibbsian.kernels.compiled.core import OPTIONS

    # As in `core.inline`, past what an import hook may have put around it.
    made = cfunc(types.void(types.voidptr), **OPTIONS)(inspect.unwrap(KERNELS[name]))
    module = llvm.parse_assembly(made.inspect_llvm())
    module.get_function(made.native_name).name = _symbol(name)
    return _machine(llvm).emit_object(module)


def _fingerprint(llvm: Any) -> str:
    """Name all that machine code depends on: source, compilers, processor."""
    parts = [
        *(path.read_text(encoding="utf-8") for path in _SOURCES),
        *(importlib.metadata.version(p) for p in ("numba", "llvmlite")),
        llvm.get_default_triple(),
        llvm.get_host_cpu_name(),
        llvm.get_host_cpu_features().flatten(),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _folder() -> Path:
    """Return where compiled kernels are kept: ``NUMBA_CACHE_DIR``, or the user's cache."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        return Path(chosen)
    import pooch

    return Path(pooch.os_cache("gibbsian")) / "kernels"


def _read(path: Path) -> bytes | None:
    """Return the code of a file that is whole: its first 32 bytes are the digest of the others."""
    try:
        kept = path.read_bytes()
    except OSError:
        return None
    return kept[32:] if hashlib.sha256(kept[32:]).digest() == kept[:32] else None


def _write(path: Path, code: bytes) -> None:
    """Keep code for later processes; where there is no room they compile again."""
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(code).digest() + code)
        os.replace(part, path)
    except OSError:
        if part is not None:
            with suppress(OSError):
                os.unlink(part)
