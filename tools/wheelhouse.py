"""Collects what tiltbox needs as wheels, for machines without internet: `make wheelhouse` (docs/offline.md).

`constraints.txt` has one version of each package, so there is nothing to resolve: what a wheel requires tells
which ones come next. Only the standard library and pip are used, since nothing may be installed yet.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from email.parser import HeaderParser
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).resolve().parents[1]
LIST = "requirements.txt"
# The workflow as a whole needs these, single stages do not.
WORKFLOW = {"snakemake", "snakemake-executor-plugin-slurm", "dvc", "mlflow", "psutil", "nvidia-ml-py"}
# Published as source alone. Built by pip, where no torch is in sight, they are plain Python: for any machine.
SOURCES = {
    *("onedl-mmcv", "onedl-mmdetection", "onedl-mmrotate"),
    *("antlr4-python3-runtime", "connection-pool"),  # of DVC and Snakemake
}
# Detectors' packages ask for them, but tiltbox uses nothing that imports them: cv2 is that of
# opencv-python-headless, and imaug is for deliberately damaged images.
UNUSED = {"opencv-python", "imaug"}
OLDEST_GLIBC = 28  # 2.28, of 2018: wheels that need a newer one are not taken
SYSTEMS = {"linux": ("linux", "Linux"), "macosx": ("darwin", "Darwin")}

Fetch = Callable[[Mapping[str, str]], Mapping[str, list[str]]]


@dataclass(frozen=True)
class Target:
    """The machine to collect for.

    Attributes:
        python: As 3.12.
        platform: As linux_x86_64 or macosx_14_0_arm64.
        present: The versions of packages that it has; empty where not known.
    """

    python: str
    platform: str
    present: Mapping[str, str] = field(default_factory=dict)

    @property
    def tags(self) -> list[str]:
        """The platforms whose wheels it takes: pip looks for these names alone."""
        system, _, processor = self.platform.partition("_")
        if system != "linux":
            return [self.platform]
        names = [f"manylinux_2_{minor}" for minor in range(OLDEST_GLIBC, 4, -1)]
        return [f"{name}_{processor}" for name in (*names, "manylinux2014", "manylinux2010", "manylinux1")]

    @property
    def markers(self) -> dict[str, str]:
        """What conditions of requirements depend on, for the last bugfix release of its Python."""
        sys_platform, system = SYSTEMS[self.platform.partition("_")[0]]
        processor = next(name for name in ("x86_64", "aarch64", "arm64") if self.platform.endswith(name))
        return {
            "python_version": self.python,
            "python_full_version": f"{self.python}.99",
            "sys_platform": sys_platform,
            "platform_system": system,
            "platform_machine": processor,
        }

    def has(self, wanted: Requirement) -> bool:
        """Whether it has that package in a version that fits, or in one that is not known."""
        version = self.present.get(_canonical(wanted))
        return version is not None and (not version or wanted.specifier.contains(version, prereleases=True))


@dataclass(frozen=True)
class Selection:
    """The exact version of each package to carry, and what is required of those of the machine."""

    carried: Mapping[str, str]
    left: frozenset[str]

    def lines(self) -> list[str]:
        return sorted(f"{name}=={version}" for name, version in self.carried.items()) + sorted(self.left)


def select(wanted: Iterable[Requirement], exact: Mapping[str, str], target: Target, fetch: Fetch) -> Selection:
    """Fetch what is wanted, what that requires, and so on.

    Args:
        exact: The versions of ``constraints.txt``, by canonical name.
        fetch: Brings packages, by name and version, and returns what each requires.
    """
    carried: dict[str, str] = {}
    left: dict[str, str] = {}
    needs: dict[str, list[str]] = {}
    seen: set[str] = set()
    while wanted := [each for each in wanted if str(each) not in seen and _canonical(each) not in UNUSED]:
        seen |= {str(each) for each in wanted}
        left |= {str(each): _canonical(each) for each in wanted if target.has(each)}
        wanted = [each for each in wanted if not target.has(each)]
        new = _versions({_canonical(each) for each in wanted} - carried.keys(), exact)
        carried |= new
        needs |= fetch(new)
        wanted = [
            need for each in wanted for need in applying(needs[_canonical(each)], target, each.extras)
        ]
    return Selection(carried, frozenset(each for each, name in left.items() if name not in carried))


def _canonical(requirement: Requirement) -> str:
    return canonicalize_name(requirement.name)


def _versions(names: Iterable[str], exact: Mapping[str, str]) -> dict[str, str]:
    if missing := sorted(set(names) - exact.keys()):
        raise SystemExit(f"constraints.txt: no version of {', '.join(missing)}; add one")
    return {name: exact[name] for name in sorted(names)}


def applying(texts: Iterable[str], target: Target, extras: Iterable[str] = ()) -> Iterator[Requirement]:
    """The requirements whose conditions the machine fulfils, without the conditions."""
    for each in map(Requirement, texts):
        condition, each.marker = each.marker, None
        cases = [target.markers | {"extra": extra} for extra in ("", *extras)]
        if not condition or any(map(condition.evaluate, cases)):
            yield each


def fetch_into(folder: Path, target: Target) -> Fetch:
    """Downloads wheels into the folder, or builds them there, with pip."""
    python = ("--python-version", target.python, *(f"--platform={tag}" for tag in target.tags))

    def fetch(versions: Mapping[str, str]) -> dict[str, list[str]]:
        pins = {name: f"{name}=={version}" for name, version in versions.items()}
        _pip("wheel", "--wheel-dir", folder, packages=[pins[name] for name in pins if name in SOURCES])
        wheels = [pins[name] for name in pins if name not in SOURCES]
        _pip("download", "--dest", folder, "--only-binary=:all:", *python, packages=wheels)
        found = {_package(wheel): wheel for wheel in folder.glob("*.whl")}
        return {name: requirements(found[name]) for name in versions}

    return fetch


def _pip(command: str, *options: str | Path, packages: list[str]) -> None:
    if not packages:
        return
    common = ("--quiet", "--disable-pip-version-check", "--no-deps")
    if code := subprocess.run([sys.executable, "-m", "pip", command, *common, *options, *packages]).returncode:
        raise SystemExit(code)


def _package(wheel: Path) -> str:
    return parse_wheel_filename(wheel.name)[0]


def requirements(wheel: Path) -> list[str]:
    """What a wheel says that it requires."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return HeaderParser().parsestr(archive.read(name).decode()).get_all("Requires-Dist", [])


def exact_versions() -> dict[str, str]:
    """The versions of ``constraints.txt``, and of what builds tiltbox, by canonical name."""
    lines = (ROOT / "constraints.txt").read_text().splitlines() + _pyproject()["build-system"]["requires"]
    pins = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pins}


def needed(parts: str) -> list[str]:
    """What tiltbox and its tests need (``core``), or the workflow and developers as well (``all``)."""
    project, build = _pyproject()["project"], _pyproject()["build-system"]["requires"]
    extras = project["optional-dependencies"]
    if parts == "all":
        return project["dependencies"] + extras["test"] + extras["dev"] + build
    core = [each for each in project["dependencies"] if _canonical(Requirement(each)) not in WORKFLOW]
    return core + extras["test"] + build


def _pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def present_packages(file: Path | None) -> dict[str, str]:
    """Of a list as ``pip list --format=freeze`` prints it, or of names alone; torch is always present."""
    lines = file.read_text().split() if file else []
    found = (line.partition("==") for line in lines)
    return {canonicalize_name(name): version for name, _, version in found} | {"torch": ""}


def collect(folder: Path, parts: str, target: Target) -> Selection:
    """Make the folder, whole or not at all."""
    if folder.exists() and any(folder.iterdir()) and not (folder / LIST).exists():
        raise SystemExit(f"{folder}: not an earlier wheelhouse; name a new folder")
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    chosen = select(applying(needed(parts), target), exact_versions(), target, fetch_into(part, target))
    (part / LIST).write_text("".join(f"{line}\n" for line in chosen.lines()))
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description="Collect what tiltbox needs, but torch, as wheels.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default=".".join(map(str, sys.version_info[:2])), metavar="3.12")
    own = sysconfig.get_platform().translate(str.maketrans("-.", "__"))
    parser.add_argument("--platform", default=own, metavar="linux_x86_64")
    parser.add_argument("--parts", choices=["core", "all"], default="core")
    parser.add_argument("--present", type=Path, metavar="FILE", help="packages of the machine, with versions")
    options = parser.parse_args()
    target = Target(options.python, options.platform, present_packages(options.present))
    chosen = collect(options.folder, options.parts, target)
    size = sum(wheel.stat().st_size for wheel in options.folder.glob("*.whl")) / 1e6
    print(f"{options.folder}: {len(chosen.carried)} wheels, {size:.0f} MB, for Python {options.python}")


if __name__ == "__main__":
    main()
