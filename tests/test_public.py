"""What `import gibbsian` offers, and what it leaves alone."""

import subprocess
import sys
from pathlib import Path

import pytest

import gibbsian as gb

HEAVY = ("matplotlib", "sklearn", "pandas", "typer", "h5py", "pyarrow", "pooch", "arviz_stats",
         "tensorboard", "gibbsian.cli")  # fmt: skip


def test_import_leaves_heavy_packages_alone() -> None:
    code = f"import sys, gibbsian; print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_public_name_is_there_and_documented() -> None:
    for name in gb.__all__:
        assert getattr(gb, name).__doc__, name


def test_source_never_unpickles() -> None:
    """Whole-object pickles."""
    for path in Path(gb.__file__).parent.rglob("*.py"):
        text = path.read_text()
        assert "torch.load(" not in text.replace("safetensors.torch.load(", ""), path
        assert "import pickle" not in text, path


def test_source_has_no_global_seed() -> None:
    for path in Path(gb.__file__).parent.rglob("*.py"):
        text = path.read_text()
        for call in ("torch.manual_seed(", "np.random.seed(", "torch.seed("):
            assert call not in text, path


def test_version_is_one_and_the_same() -> None:
    import tomllib

    root = Path(__file__).parents[1]
    with open(root / "pyproject.toml", "rb") as file:
        assert tomllib.load(file)["project"]["version"] == gb.__version__


@pytest.mark.parametrize("name", ["units", "connections", "machine", "path", "samplers"])
def test_lower_rooms_do_not_import_upper_ones(name: str) -> None:
    upper = ("estimators", "training", "trained", "evaluators", "data", "cli", "report", "sklearn")
    root = Path(gb.__file__).parent
    files = list((root / name).rglob("*.py")) or [root / f"{name}.py"]
    for path in files:
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] == ["from"] and words[1].startswith("gibbsian."):
                assert words[1].split(".")[1] not in upper, (path, line)
