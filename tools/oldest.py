"""Prints the oldest versions that `pyproject.toml` allows, of all but torch, for `make test-oldest`."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def main() -> None:
    for line in tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]:
        requirement = Requirement(line)
        (oldest,) = (each.version for each in requirement.specifier if each.operator == ">=")
        if requirement.name != "torch":  # the machine's own, or that of `make setup`
            print(f"{requirement.name}=={oldest}")


if __name__ == "__main__":
    main()
