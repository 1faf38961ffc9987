"""The compiled kernels on disk: used again, replaced when damaged, done without where they cannot be.

Compiling takes seconds, so that most tests compile nothing: they start from an object file that two
processes wrote at once.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import Generator

from gibbsian import kernels
from gibbsian.errors import GibbsianWarning
from gibbsian.kernels import library, native, plain

compiles = pytest.mark.skipif(
    os.environ.get("GIBBSIAN_KERNELS") == "plain", reason="the compiled kernels are turned off"
)

_FIRST_USE = """
import sys, types

for name in ("gibbsian", "gibbsian.kernels"):  # no more of the package than it takes
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [{source!r} + "/" + name.replace(".", "/")]
from gibbsian.kernels import library

print(library.address("bernoulli") != 0, "numba" in sys.modules, "torch" in sys.modules)
"""

_DRAW = """
import sys, warnings
import torch
from gibbsian import kernels

warnings.simplefilter("error")
field = torch.linspace(-1, 1, 129).repeat(20, 1)
drawn = kernels.bernoulli(field, -field[0], torch.Generator().manual_seed(5))
print("numba" in sys.modules, *drawn.int().flatten().tolist())
"""


def _start(program: str, folder: Path) -> subprocess.Popen[str]:
    """Start a Python program, with its kernels in a folder."""
    return subprocess.Popen(
        [sys.executable, "-c", program.format(source=str(Path(library.__file__).parents[2]))],
        env=os.environ | {"NUMBA_CACHE_DIR": str(folder)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _finish(process: subprocess.Popen[str]) -> list[str]:
    """Return the words that a program printed; it has nothing to complain of."""
    out, problems = process.communicate(timeout=120)
    assert process.returncode == 0 and problems == "", problems
    return out.split()


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Two processes that use a kernel first at the same time; return their folder and words."""
    folder = tmp_path_factory.mktemp("kernels") / "not made yet"
    processes = [_start(_FIRST_USE, folder) for _ in range(2)]
    return folder, [_finish(process) for process in processes]


@pytest.fixture
def cache(together, tmp_path, monkeypatch) -> Path:
    """A kept kernel, in a folder of its own; this process has not loaded it."""
    (kept,) = together[0].glob("bernoulli-*.o")
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(folder))
    return Path(shutil.copy(kept, folder))


@pytest.fixture
def compilations(cache, monkeypatch) -> list[str]:
    """The names of kernels that are compiled from here on; the code itself is the kept one."""
    code, names = cache.read_bytes()[32:], []
    monkeypatch.setattr(library, "_compile", lambda name, llvm: names.append(name) or code)
    return names


def _works(name: str = "bernoulli") -> bool:
    """Load a kernel as a new process would."""
    return library.address.__wrapped__(name) != 0


@compiles
def test_two_processes_compile_at_once(together):
    folder, (one, two) = together
    assert one == two == ["True", "True", "False"]
    (file,) = folder.iterdir()
    assert hashlib.sha256(file.read_bytes()[32:]).digest() == file.read_bytes()[:32]


@compiles
def test_kept_kernels_are_used_without_numba(together):
    numba, *drawn = _finish(_start(_DRAW, together[0]))
    field, generator = torch.linspace(-1, 1, 129).repeat(20, 1), Generator().manual_seed(5)
    here = kernels.bernoulli(field, -field[0], generator).int().flatten().tolist()
    assert numba == "False" and [int(x) for x in drawn] == here


@compiles
def test_compiled_once(cache, compilations):
    assert _works() and compilations == []
    cache.unlink()
    assert _works() and compilations == ["bernoulli"]
    assert _works() and compilations == ["bernoulli"]
    assert [file.name for file in cache.parent.iterdir()] == [cache.name]


@compiles
@pytest.mark.parametrize(
    "damage",
    [
        lambda code: b"",
        lambda code: code[:20],
        lambda code: code[:32],
        lambda code: code[:-1],
        lambda code: code[: len(code) // 2],
        lambda code: code[:500] + bytes([code[500] ^ 1]) + code[501:],
        lambda code: bytes(len(code)),
        lambda code: code[32:],
    ],
    ids=["empty", "20", "32", "last", "half", "bit", "zeros", "no-digest"],
)
def test_a_damaged_file_is_replaced(damage, cache, compilations):
    whole = cache.read_bytes()
    cache.write_bytes(damage(whole))
    assert _works() and compilations == ["bernoulli"]
    assert cache.read_bytes() == whole
    assert [file.name for file in cache.parent.iterdir()] == [cache.name]


@compiles
@pytest.mark.parametrize("source", ["text", "numba", "processor"])
def test_other_sources_compilers_and_processors_have_other_files(
    source, cache, compilations, monkeypatch, tmp_path
):
    if source == "text":
        first, *rest = library._SOURCES
        changed = tmp_path / first.name
        changed.write_text(first.read_text(encoding="utf-8") + "\n", encoding="utf-8")
        monkeypatch.setattr(library, "_SOURCES", [changed, *rest])
    elif source == "numba":
        monkeypatch.setattr(library.importlib.metadata, "version", lambda name: "1.0")
    else:
        import llvmlite.binding as llvm

        monkeypatch.setattr(llvm, "get_host_cpu_name", lambda: "generic")
    assert _works() and compilations == ["bernoulli"]
    assert len(list(cache.parent.iterdir())) == 2


def test_every_source_is_in_the_name():
    folder = Path(library.__file__).with_name("compiled")
    assert set(library._SOURCES) == set(folder.rglob("*.py")) != set()


@compiles
@pytest.mark.parametrize("variable", ["NUMBA_CACHE_DIR", "HOME"])
def test_a_folder_that_cannot_be_written(variable, compilations, tmp_path, monkeypatch):
    """A folder below a file cannot be made by anyone, root included."""
    (tmp_path / "file").write_text("")
    impossible = str(tmp_path / "file" / "folder")
    if variable == "HOME":
        for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, impossible)
    assert str(library._folder()).startswith(impossible)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _works() and _works()
    assert compilations == ["bernoulli", "bernoulli"]


@compiles
def test_a_file_that_cannot_be_replaced(cache, compilations):
    cache.unlink()
    cache.mkdir()
    assert _works() and compilations == ["bernoulli"]
    assert [file.name for file in cache.parent.iterdir()] == [cache.name]


@pytest.fixture
def afresh():
    """A process that has not looked for compiled kernels yet, nor warned of them."""
    found = [f for f in vars(native).values() if hasattr(f, "cache_clear")]
    for function in found:
        function.cache_clear()
    yield
    for function in found:
        function.cache_clear()


def _same(draw: str, module) -> bool:
    """Tell whether a kernel draws as it does in a module."""
    field = torch.linspace(-1, 1, 129).repeat(20, 1)
    one, two = (
        getattr(k, draw)(field, field[0], Generator().manual_seed(3)) for k in (kernels, module)
    )
    return torch.equal(one, two)


def test_the_plain_path_on_request(afresh, monkeypatch):
    monkeypatch.setenv("GIBBSIAN_KERNELS", "plain")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _same("bernoulli", plain) and _same("spin", plain)


@compiles
def test_without_numba_plain_pytorch_draws_and_one_sentence_says_so(afresh, monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(library, "address", library.address.__wrapped__)
    with pytest.warns(GibbsianWarning) as told:
        assert _same("spin", plain) and _same("bernoulli", plain) and _same("spin", plain)
    (line,) = str(told.pop().message).splitlines()
    assert line.startswith("the fast CPU kernels cannot be compiled (") and "numba" in line
    assert line.endswith("reinstall numba, or set GIBBSIAN_KERNELS=plain") and ". " not in line
    assert not told.list


@compiles
def test_a_failure_is_told_once_and_in_one_line(afresh, monkeypatch):
    def fail(name):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(library, "address", fail)
    with pytest.warns(GibbsianWarning, match=r"cannot be compiled \(first line\)") as told:
        assert _same("spin", plain) and _same("bernoulli", plain) and _same("spin", plain)
    assert len(told) == 1


@compiles
def test_one_kernel_alone_may_fail(afresh, monkeypatch):
    """As after an update of NumPy that numba does not know, when some kernels have been kept."""
    address = library.address

    def fail(name):
        if name == "spin":
            raise ImportError("Numba needs NumPy 2.4 or less")
        return address(name)

    monkeypatch.setattr(library, "address", fail)
    with pytest.warns(GibbsianWarning, match="needs NumPy") as told:
        assert not _same("bernoulli", plain) and _same("spin", plain)
    assert len(told) == 1
