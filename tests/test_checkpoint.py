"""Checkpoints: what goes in comes out, and damage, kills and full disks are survived and named."""

import ast
import errno
import json
import math
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from gibbsian import checkpoint
from gibbsian.errors import GibbsianError, GibbsianWarning, RunError, TrainingError

WHOLE = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


def bits(tensor: torch.Tensor) -> bytes:
    plain = tensor.resolve_neg().clone(memory_format=torch.contiguous_format).reshape(-1)
    return bytes(plain.view(torch.uint8).tolist())


def assert_same(a, b, where="tree"):
    """Equal in type and value, NaN included, tensors bit for bit."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), where
        assert bits(a) == bits(b), where
    elif isinstance(a, dict):
        assert list(a) == list(b) and list(map(type, a)) == list(map(type, b)), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}.{i}")
    elif isinstance(a, float):
        assert repr(a) == repr(b), where
    else:
        assert a == b, where


def a_tree(step=0) -> dict:
    shared = torch.arange(12, dtype=torch.float32).reshape(3, 4) + step
    odd = torch.tensor([math.nan, -math.nan, math.inf, -0.0, 5e-324], dtype=torch.float64)
    return {
        "machine": {
            "W": shared,
            "W_transposed": shared.T,
            "row": shared[1],
            "strided": shared[::2],
        },
        "dtypes": [
            torch.tensor([True, False, True]),
            torch.tensor([1.5, -2.25], dtype=torch.bfloat16),
            torch.tensor([1.5, math.inf], dtype=torch.float16),
            torch.tensor([-(2**63), 2**63 - 1]),
            *(torch.tensor([0, 1, 77]).to(dtype) for dtype in WHOLE),
            torch.tensor([1 + 2j]).conj().imag,  # its minus sign is only noted, until resolved
            odd,
        ],
        "shapes": (torch.tensor(3.5), torch.empty(0), torch.empty(2, 0, 3, dtype=torch.int32)),
        "optimizer": {"state": {0: {"step": torch.tensor(7.0)}, 1: {}, -5: None}, "groups": []},
        "numbers": [0.1, 1 / 3, 1e-320, -0.0, 1e308, math.inf, -math.inf, math.nan, 2**70, -1],
        "kinds": [1, 1.0, True, "1", None, "", "θ \ud800 \n", [], {}, (), (1,), [[(None,)]]],
        "milestones": Counter({30: 1, 80: 2}),
        "a.b": torch.tensor([1.0]),
        "a": {"b": torch.tensor([2.0])},
        "": torch.tensor([3.0]),
        "__metadata__": torch.tensor([4.0]),
        "rng": torch.Generator().manual_seed(step).get_state(),
        "step": step,
    }


def test_round_trip_through_files(tmp_path):
    tree = a_tree(12)
    path = checkpoint.write(tmp_path / "deep" / "folder", 12, tree)
    found = checkpoint.read(path)
    assert found.step == 12 and found.path == path
    assert_same(tree, found.tree)
    found.tree["machine"]["W"].add_(1)  # ordinary memory, and no longer shared
    assert_same(tree["machine"]["row"], found.tree["machine"]["row"])


def test_round_trip_comparison_can_fail(tmp_path):
    checkpoint.write(tmp_path, 1, {"x": torch.tensor([0.0]), "t": (1,)})
    found = checkpoint.latest(tmp_path).tree
    for wrong in ({"x": torch.tensor([-0.0]), "t": (1,)}, {"x": torch.tensor([0.0]), "t": [1]}):
        with pytest.raises(AssertionError):
            assert_same(wrong, found)


@pytest.mark.parametrize("tree", [torch.ones(2), 3.5, None, "text", [1, (2, [])], math.nan])
def test_a_tree_need_not_be_a_dict(tree):
    tensors, structure = checkpoint.pack(tree)
    assert_same(tree, checkpoint.unpack(tensors, json.loads(json.dumps(structure))))


def test_pack_copies_and_normalises():
    weight = torch.nn.Parameter(torch.ones(2))
    tree = OrderedDict(w=weight, lr=np.float64(0.1))
    tensors, structure = checkpoint.pack(tree)
    with torch.no_grad():
        weight.zero_()
    back = checkpoint.unpack(tensors, structure)
    assert_same({"w": torch.ones(2), "lr": 0.1}, back)


class Foo:
    pass


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"optimizer": {"state": {0: {"foo": Foo()}}}}, "optimizer.state.0.foo is a Foo:"),
        ({"f": [0, math.sin]}, "f.1 is a builtin_function_or_method:"),
        ({"x": np.ones(2)}, "x is a ndarray:"),
        ({"x": {1.5: 0}}, "a key of x is a float:"),
        ({"x": {True: 0}}, "a key of x is a bool:"),
        (Foo(), "the state is a Foo:"),
    ],
)
def test_what_cannot_be_resumed_is_named(tree, words, tmp_path):
    with pytest.raises(TrainingError) as caught:
        checkpoint.write(tmp_path, 1, tree)
    assert words in str(caught.value) and "without unpickling" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_tensors_that_do_not_fit_are_named():
    for tensor in (
        torch.eye(2).to_sparse(),
        torch.ones(2, dtype=torch.complex64),
        torch.ones(2, device="meta"),
    ):
        with pytest.raises(TrainingError, match=r"^a\.b is a tensor of"):
            checkpoint.pack({"a": {"b": tensor}})


@pytest.mark.parametrize(
    "structure",
    [
        {"tensor": "gone"},
        {"set": [1]},
        {"dict": [[1]]},
        {"dict": [[[], 1]]},
        {"float": "big"},
        [1],
        {"list": 3},
    ],
)
def test_a_structure_of_another_kind_is_refused(structure):
    with pytest.raises(RunError, match="does not understand"):
        checkpoint.unpack({}, structure)


OPTIMIZERS = [
    *("SGD", "RMSprop", "Rprop", "ASGD", "Adagrad", "Adadelta", "Adafactor", "LBFGS"),
    *("Adam", "AdamW", "Adamax", "NAdam", "RAdam"),
]


def trainer(name):
    weight = torch.nn.Parameter(torch.linspace(-1, 1, 6).reshape(2, 3))
    extra = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
    optimizer = getattr(torch.optim, name)([weight], lr=0.01, **extra)
    multi_step = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 5])
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
    generator = torch.Generator().manual_seed(3)

    def advance(updates):
        for _ in range(updates):
            noise = torch.randn(2, 3, generator=generator)

            def closure(noise=noise):
                weight.grad = weight.detach() - noise
                return (weight.detach() - noise).square().sum()

            loss = optimizer.step(closure)
            multi_step.step()
            plateau.step(float(loss))
        return weight

    def state():
        parts = {"optimizer": optimizer, "multi_step": multi_step, "plateau": plateau}
        tree = {key: part.state_dict() for key, part in parts.items()}
        return tree | {"weight": weight, "rng": generator.get_state()}

    def restore(tree):
        with torch.no_grad():
            weight.copy_(tree["weight"])
        optimizer.load_state_dict(tree["optimizer"])
        multi_step.load_state_dict(tree["multi_step"])
        plateau.load_state_dict(tree["plateau"])
        generator.set_state(tree["rng"])

    return advance, state, restore


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_state_continues_bit_for_bit(name, tmp_path):
    advance, state, _ = trainer(name)
    advance(3)
    checkpoint.write(tmp_path, 3, state())
    expected = advance(4)

    advance, _, restore = trainer(name)
    assert not torch.equal(advance(4), expected)  # the twin that starts afresh differs
    restore(checkpoint.latest(tmp_path).tree)
    assert bits(advance(4)) == bits(expected)


# --- damage -------------------------------------------------------------------------------------


def halves(folder, step):
    (data,) = folder.glob(f"step-{step:09d}-*.safetensors")
    return data, folder / f"step-{step:09d}.json"


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "tensors truncated": (0, lambda p: os.truncate(p, p.stat().st_size - 1)),
    "tensors empty": (0, lambda p: os.truncate(p, 0)),
    "tensors longer": (0, lambda p: p.write_bytes(p.read_bytes() + b"\0")),
    "tensors altered at the end": (0, lambda p: flip(p, -1)),
    "tensors altered in the header": (0, lambda p: flip(p, 20)),
    "tensors missing": (0, lambda p: p.unlink()),
    "JSON truncated": (1, lambda p: os.truncate(p, p.stat().st_size // 2)),
    "JSON empty": (1, lambda p: os.truncate(p, 0)),
    "JSON altered": (1, lambda p: p.write_text(p.read_text().replace('"step": 3', '"step": 4'))),
    "JSON of something else": (1, lambda p: p.write_text('{"a": 1}')),
    "JSON not text": (1, lambda p: p.write_bytes(b"\xff\xfe\0")),
    "JSON a list": (1, lambda p: p.write_text("[]")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_detected_named_and_passed_over(damage, tmp_path):
    for step in (1, 2, 3):
        checkpoint.write(tmp_path, step, {"x": torch.full((5,), float(step)), "step": step})
    half, act = DAMAGES[damage]
    victim = halves(tmp_path, 3)[half]
    act(victim)
    with pytest.raises(RunError) as caught:
        checkpoint.read(tmp_path, 3)
    assert victim.name in str(caught.value) and str(caught.value).count("\n") == 0
    with pytest.warns(GibbsianWarning, match=victim.name.replace(".", r"\.")):
        found = checkpoint.latest(tmp_path)
    assert found.step == 2 and found.tree["step"] == 2


def test_every_changed_byte_of_the_json_is_detected_or_harmless(tmp_path):
    tree = {"x": torch.ones(2), "rate": 0.25, "list": [1, {2: "three"}]}
    path = checkpoint.write(tmp_path, 1, tree)
    whole, detected = path.read_bytes(), 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            assert_same(tree, checkpoint.read(path).tree)
        except RunError:
            detected += 1
    assert detected > 0.5 * len(whole)


def test_a_json_without_its_own_checksum_would_be_believed(tmp_path):
    """The twin: with the seal made anew, the same alteration goes through."""
    path = checkpoint.write(tmp_path, 1, {"rate": 0.25})
    sealed = json.loads(path.read_text().replace("0.25", "0.75"))
    sealed["sha256"] = checkpoint._seal(sealed["checkpoint"])
    path.write_text(json.dumps(sealed))
    assert checkpoint.read(path).tree == {"rate": 0.75}


def test_all_damaged_or_none_there(tmp_path):
    with pytest.raises(RunError, match="no checkpoint yet"):
        checkpoint.latest(tmp_path / "nowhere")
    assert checkpoint.steps(tmp_path / "nowhere") == []
    for step in (1, 2):
        os.truncate(checkpoint.write(tmp_path, step, {"x": 1}), 5)
    with (
        pytest.warns(GibbsianWarning) as warned,
        pytest.raises(RunError, match=r"all 2 checkpoints .* are damaged"),
    ):
        checkpoint.latest(tmp_path)
    assert ["step 2" in str(w.message) for w in warned] == [True, False]


def test_a_missing_step_names_those_there(tmp_path):
    checkpoint.write(tmp_path, 10, {})
    checkpoint.write(tmp_path, 20, {})
    with pytest.raises(RunError, match=r"no checkpoint of step 15; the steps there are 10, 20"):
        checkpoint.read(tmp_path, 15)
    with pytest.raises(RunError, match="is missing"):
        checkpoint.read(tmp_path / "step-000000099.json")
    with pytest.raises(RunError, match="cannot read"):
        checkpoint.read(tmp_path)


def test_a_newer_format_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    path = checkpoint.write(tmp_path, 1, {})
    monkeypatch.undo()
    with pytest.raises(RunError, match="has checkpoint format 2"):
        checkpoint.read(path)


# --- writing ------------------------------------------------------------------------------------


def test_pruning(tmp_path):
    for step in range(10, 110, 10):
        checkpoint.write(tmp_path, step, {"s": step}, keep_last=2, keep_every=40, keep=[10])
    assert checkpoint.steps(tmp_path) == [10, 40, 80, 90, 100]
    assert len(list(tmp_path.iterdir())) == 10  # both halves of each, and nothing else
    assert [checkpoint.read(tmp_path, s).tree["s"] for s in (10, 40, 100)] == [10, 40, 100]
    checkpoint.write(tmp_path, 5, {"s": 5}, keep_last=1, keep=[10])  # an earlier one, just written
    assert checkpoint.steps(tmp_path) == [5, 10, 100]


@pytest.mark.parametrize("setting", [{"keep_last": 0}, {"keep_every": 0}])
def test_impossible_settings(setting, tmp_path):
    with pytest.raises(TrainingError, match="keep_last >= 1"):
        checkpoint.write(tmp_path, 1, {}, **setting)


def test_steps_beyond_nine_digits_and_foreign_files(tmp_path):
    (tmp_path / "notes.json").write_text("{}")
    for step in (999_999_999, 1_000_000_000):
        checkpoint.write(tmp_path, step, {"step": step}, keep_last=1)
    assert checkpoint.steps(tmp_path) == [1_000_000_000]
    assert checkpoint.latest(tmp_path).tree == {"step": 1_000_000_000}
    assert (tmp_path / "notes.json").exists()


def test_the_same_step_again_replaces_it(tmp_path):
    for value in (1.0, 1.0, 2.0):
        checkpoint.write(tmp_path, 7, {"x": torch.tensor(value)})
        assert len(list(tmp_path.iterdir())) == 2
        assert checkpoint.latest(tmp_path).tree["x"] == value


def test_a_kill_between_the_halves_of_a_rewrite_keeps_the_old_one(tmp_path, monkeypatch):
    checkpoint.write(tmp_path, 7, {"x": torch.tensor(1.0)})
    replace, calls = os.replace, []

    def killed(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt  # nothing after this line runs but the cleaning up
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.write(tmp_path, 7, {"x": torch.tensor(2.0)})
    monkeypatch.undo()
    assert calls[0].suffix == ".safetensors" and calls[1].suffix == ".json"
    assert checkpoint.latest(tmp_path).tree["x"] == 1.0
    checkpoint.write(tmp_path, 8, {})
    assert checkpoint.read(tmp_path, 7).tree["x"] == 1.0
    assert len(list(tmp_path.glob("step-000000007-*"))) == 1  # the orphan is gone, its own stays


def test_leftovers_of_a_killed_process_are_ignored_then_removed(tmp_path):
    checkpoint.write(tmp_path, 1, {"x": 1})
    (tmp_path / ".step-000000002.json.4711.writing").write_text('{"half')
    orphan = tmp_path / f"step-000000002-{'0' * 12}.safetensors"
    orphan.write_bytes(b"whole, but its JSON never came")
    assert checkpoint.steps(tmp_path) == [1] and checkpoint.latest(tmp_path).step == 1
    checkpoint.write(tmp_path, 3, {"x": 3})
    assert not orphan.exists() and len(list(tmp_path.iterdir())) == 4


def test_cleaning_spares_the_tensors_of_a_damaged_json(tmp_path):
    checkpoint.write(tmp_path, 1, {"x": torch.ones(2)})
    data, path = halves(tmp_path, 1)
    os.truncate(path, 3)
    extra = tmp_path / f"step-000000001-{'0' * 12}.safetensors"
    extra.write_bytes(b"which of the two is its own, nobody can tell")
    checkpoint.write(tmp_path, 2, {})
    assert data.exists() and extra.exists()


@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "No space left on device; free some space"),
        (errno.EROFS, "Read-only file system; check the folder or choose another one"),
        (errno.EIO, "Input/output error; check the folder"),
    ],
)
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failed_write_leaves_what_was_there(function, code, words, call, tmp_path, monkeypatch):
    for step in (1, 2, 3):
        checkpoint.write(tmp_path, step, {"x": torch.ones(3) * step})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    real, calls = getattr(os, function), []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == call:
            raise OSError(code, os.strerror(code))
        return real(*arguments)

    monkeypatch.setattr(os, function, failing)
    with pytest.raises(RunError) as caught:
        checkpoint.write(tmp_path, 4, {"x": torch.zeros(3)})
    monkeypatch.undo()
    assert words in str(caught.value) and str(caught.value).endswith(".")
    assert checkpoint.steps(tmp_path) == [1, 2, 3] and checkpoint.latest(tmp_path).step == 3
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before.items() <= after.items()
    assert not [name for name in after if name.endswith(".writing")]
    checkpoint.write(tmp_path, 4, {"x": torch.zeros(3)})
    assert checkpoint.steps(tmp_path) == [2, 3, 4] and len(list(tmp_path.iterdir())) == 6


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunError, match="cannot write into"):
            checkpoint.write(folder, 1, {})
    with pytest.raises(RunError, match="cannot list"):
        checkpoint.latest(tmp_path / "file")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 KiB, where this machine lets us make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine does not let the tests mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_really_is_full_or_read_only(small_disk):
    checkpoint.write(small_disk, 1, {"x": torch.ones(20_000)})
    with pytest.raises(RunError, match="No space left on device; free some space"):
        checkpoint.write(small_disk, 2, {"x": torch.ones(60_000)})
    assert len(list(small_disk.iterdir())) == 2 and checkpoint.latest(small_disk).step == 1
    checkpoint.write(small_disk, 3, {"x": torch.ones(20_000)})
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(RunError, match="Read-only file system"):
        checkpoint.write(small_disk, 4, {})
    assert checkpoint.latest(small_disk).step == 3


KILLED = """
    import os, random, signal, sys, time, warnings
    import torch
    from gibbsian import checkpoint

    torch.set_num_threads(1)
    warnings.simplefilter("error")  # a damaged checkpoint would be warned of
    folder, rng, newest, cut_short = sys.argv[1], random.Random(7), 0, 0
    checkpoint.write(folder, 0, {"x": torch.zeros(1), "step": 0})
    for life in range(60):
        if life >= 12 and cut_short:
            break
        child = os.fork()
        if child == 0:
            step = newest
            while True:
                step += 1
                tree = {"x": torch.full((200_000,), float(step)), "step": step}
                checkpoint.write(folder, step, tree, keep_last=2)
        time.sleep(0.1 + 0.2 * rng.random())
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        cut_short += any(name.endswith(".writing") for name in os.listdir(folder))
        found = checkpoint.latest(folder)
        assert found.step == found.tree["step"] and found.step >= newest, (found.step, newest)
        assert bool((found.tree["x"] == found.step).all())
        newest = found.step
    assert newest > 0
    assert cut_short > 0, "no kill struck in the middle of a write"
    checkpoint.write(folder, newest + 1, {})
    assert not [name for name in os.listdir(folder) if name.endswith(".writing")]
    print("survived", newest, cut_short)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a thing of POSIX")
def test_kill_9_in_the_middle_of_writes(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("survived")


# --- nothing is ever unpickled ------------------------------------------------------------------


def test_no_pickle_is_written_or_read(tmp_path, monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("pickle was used")

    for module, names in ((pickle, "load loads dump dumps Unpickler"), (torch, "load save")):
        for name in names.split():
            monkeypatch.setattr(module, name, forbidden)
    tree = a_tree(1)
    checkpoint.write(tmp_path, 1, tree)
    assert_same(tree, checkpoint.latest(tmp_path).tree)
    data, path = halves(tmp_path, 1)
    assert len(safetensors.torch.load_file(data)) > 10
    assert json.loads(path.read_text())["checkpoint"]["step"] == 1


def unpicklers(source: str) -> list[str]:
    """Find the imports and calls in a source that can unpickle."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{a.name}" for a in node.names]
        elif isinstance(node, ast.Call):
            found.append(ast.unparse(node.func))
            found += [k.arg for k in node.keywords if k.arg and ast.unparse(k.value) == "True"]
    bad = ("pickle", "joblib", "shelve", "marshal")
    exact = ("torch.load", "torch.save")
    return [name for name in found if name in exact or any(word in name for word in bad)]


def test_no_source_of_the_package_can_unpickle():
    package = Path(checkpoint.__file__).parent
    sources = sorted(package.rglob("*.py"))
    assert len(sources) > 3
    assert {p.name: bad for p in sources if (bad := unpicklers(p.read_text("utf-8")))} == {}
    for wrong in ("import pickle", "torch.load(f)", "np.load(f, allow_pickle=True)"):
        assert unpicklers(wrong)


def test_errors_are_the_packages_own():
    assert issubclass(RunError, GibbsianError) and issubclass(TrainingError, GibbsianError)
