"""The exact versions of `constraints.txt`, the ranges of `pyproject.toml` and what is installed agree."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
EXACT = {canonicalize_name(name): exact for name, exact in (line.split("==") for line in LINES)}


def requirements(*lists: list[str]) -> list[Requirement]:
    """Those of the lists, without torch: a GPU machine brings its own."""
    every = map(Requirement, chain(*lists))
    return [requirement for requirement in every if requirement.name != "torch"]


NEEDED = requirements(PROJECT["dependencies"])
EXTRAS = requirements(*PROJECT["optional-dependencies"].values())


@pytest.mark.parametrize("requirement", NEEDED + EXTRAS, ids=lambda requirement: requirement.name)
def test_the_exact_version_is_inside_the_range(requirement):
    assert requirement.specifier, "a lower bound is missing"
    assert EXACT[canonicalize_name(requirement.name)] in requirement.specifier


def test_the_oldest_versions_are_the_lower_bounds():
    """What `make test-oldest` installs."""
    done = subprocess.run([sys.executable, ROOT / "tools/oldest.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    oldest = dict(line.split("==") for line in done.stdout.splitlines())
    assert oldest.keys() == {each.name for each in NEEDED}
    assert all(f">={oldest[each.name]}" in map(str, each.specifier) for each in NEEDED)


def test_each_name_has_one_line_and_torch_has_none():
    assert len(EXACT) == len(LINES)
    torchs_own = re.compile(r"torch|triton|cuda-.*|nvidia-(?!ml-py).*")
    assert not [name for name in EXACT if torchs_own.fullmatch(name)]


def test_the_exact_versions_are_installed():
    found = {canonicalize_name(requirement.name): version(requirement.name) for requirement in NEEDED}
    others = {name: installed for name, installed in found.items() if installed != EXACT[name]}
    if others:
        pytest.skip(f"installed are not the versions of constraints.txt, but {others}")
