"""Commands as users type them, run in this process."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tiltbox.__main__ import main
from tiltbox.dota.images.pixels import write_png

SHIP = "0 0 9 0 9 5 0 5 ship 0\n"


def _run(command: str, **paths: Path) -> int:
    words = shlex.split(command)
    try:
        return main([word.format(**paths) for word in words])
    except SystemExit as end:
        return end.code


@pytest.fixture
def run() -> Callable[..., int]:
    """Runs a command and gives its exit code; ``{name}`` stands for one of the paths."""
    return _run


@pytest.fixture
def failure(capfd) -> Callable[..., str]:
    """Runs a command that must end with code 1, and gives its one line, also of what libraries print."""

    def failed(command: str, **paths: Path) -> str:
        assert _run(command, **paths) == 1
        out, err = capfd.readouterr()
        assert out == ""
        assert err.count("\n") == 1 and err.startswith(f"tiltbox {command.split(maxsplit=1)[0]}: "), err
        return err.strip()

    return failed


@pytest.fixture
def source(tmp_path) -> Path:
    """A folder with one image, and a label file with one ship."""
    folder = tmp_path / "source"
    for name in ("images", "labelTxt"):
        (folder / name).mkdir(parents=True)
    write_png(folder / "images/P1.png", np.full((64, 64, 3), 80, np.uint8))
    (folder / "labelTxt/P1.txt").write_text(SHIP)
    return folder
