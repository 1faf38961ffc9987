"""The README's own lines run as they stand."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from gibbsian.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text()


def block(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    assert len(found) == 1
    return found[0]


def test_python_lines(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block("python"), "README.md", "exec"), {})
    assert "ais" in capsys.readouterr().out
    assert (tmp_path / "machine.safetensors").is_file()


def test_shell_lines(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [line for line in block("sh").splitlines() if line.strip()]
    assert len(lines) == 10
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "gibbsian"
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as left:
            main()
        assert not left.value.code, line
    for name in ("samples.png", "walk.gif", "runs/digits/report.html", "runs/study/study.png"):
        assert (tmp_path / name).is_file()


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (Path(__file__).parents[1] / target).exists(), target
