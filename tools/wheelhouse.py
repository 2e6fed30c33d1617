"""Collects what tiltbox needs as wheels, for machines without internet: `make wheelhouse` (docs/offline.md).

`constraints.txt` has one version of each package, so nothing has to be resolved: what a wheel requires is
collected next. Only pip and the standard library are used, since nothing may be installed yet.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from email.parser import HeaderParser
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.specifiers import SpecifierSet
from pip._vendor.packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LIST, TORCH = "requirements.txt", "torch"
# The workflow as a whole needs these, single stages do not.
WORKFLOW = {"snakemake", "snakemake-executor-plugin-slurm", "dvc", "mlflow", "psutil", "nvidia-ml-py"}
# Published as source alone. pip builds them where it sees no torch: as plain Python, for any machine.
SOURCES = {
    *("onedl-mmcv", "onedl-mmdetection", "onedl-mmrotate"),
    *("antlr4-python3-runtime", "connection-pool"),  # for DVC and Snakemake
}
# The detectors' packages ask for them, but tiltbox uses nothing that imports them: cv2 is that of
# opencv-python-headless, and imaug damages images deliberately.
UNUSED = {"opencv-python", "imaug"}
GLIBC = 28  # of Linux machines, at least 2.28 (2018): wheels for newer ones are not taken
SYSTEMS = {"linux": ("linux", "Linux"), "macosx": ("darwin", "Darwin")}
PLATFORM = re.compile(r"linux_(x86_64|aarch64)|macosx_\d+_\d+_(x86_64|arm64)")

Fetch = Callable[[Mapping[str, str]], Mapping[str, list[str]]]


@dataclass(frozen=True)
class Target:
    """The machine to collect for.

    Attributes:
        python: Such as 3.12.
        platform: Such as linux_x86_64 or macosx_14_0_arm64.
        present: The versions of packages that it has; empty where any is taken. torch is always present.
    """

    python: str
    platform: str
    present: Mapping[str, str] = field(default_factory=dict)

    @property
    def tags(self) -> list[str]:
        """The platforms whose wheels it takes; pip compares names, not versions."""
        system, _, processor = self.platform.partition("_")
        if system != "linux":
            return [self.platform]
        names = [f"manylinux_2_{minor}" for minor in range(GLIBC, 4, -1)]
        return [f"{name}_{processor}" for name in (*names, "manylinux2014", "manylinux2010", "manylinux1")]

    @property
    def markers(self) -> dict[str, str]:
        """What the conditions of requirements depend on, with the last bugfix release of its Python."""
        sys_platform, system = SYSTEMS[self.platform.partition("_")[0]]
        linux, mac = PLATFORM.fullmatch(self.platform).groups()
        return {
            "python_version": self.python,
            "python_full_version": f"{self.python}.99",
            "sys_platform": sys_platform,
            "platform_system": system,
            "platform_machine": linux or mac,
        }

    def has(self, wanted: Requirement) -> bool:
        """Whether it has the package, in a version that may be taken."""
        version = self.present.get(_canonical(wanted), "" if wanted.name == TORCH else None)
        return version is not None and (not version or wanted.specifier.contains(version, prereleases=True))

    def must_have(self, wanted: Requirement) -> str:
        """What setting up checks there."""
        return str(wanted) if wanted.name == TORCH or self.present[_canonical(wanted)] else wanted.name


@dataclass(frozen=True)
class Selection:
    """The exact version of each package to carry, and what is required of those of the machine."""

    carried: Mapping[str, str]
    left: frozenset[str]

    def lines(self) -> list[str]:
        return sorted(f"{name}=={version}" for name, version in self.carried.items()) + sorted(self.left)


def select(
    wanted: Iterable[Requirement], exact: Mapping[str, str], target: Target, fetch: Fetch
) -> Selection:
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
        left |= {target.must_have(each): _canonical(each) for each in wanted if target.has(each)}
        wanted = [each for each in wanted if not target.has(each)]
        new = _versions({_canonical(each) for each in wanted} - carried.keys(), exact)
        carried |= new
        needs |= fetch(new)
        lists = [(needs[_canonical(each)], each.extras) for each in wanted]
        wanted = [need for texts, extras in lists for need in applying(texts, target, extras)]
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
    """Wheels are downloaded into the folder, or built there, by pip."""
    machine = ("--python-version", target.python, *(f"--platform={tag}" for tag in target.tags))

    def fetch(versions: Mapping[str, str]) -> dict[str, list[str]]:
        pins = {name: f"{name}=={version}" for name, version in versions.items()}
        _pip("wheel", "--wheel-dir", folder, pins=[pins[name] for name in pins if name in SOURCES])
        wheels = [pins[name] for name in pins if name not in SOURCES]
        _pip("download", "--dest", folder, "--only-binary=:all:", *machine, pins=wheels)
        found = {parse_wheel_filename(wheel.name)[0]: wheel for wheel in folder.glob("*.whl")}
        return {name: requirements(found[name]) for name in versions}

    return fetch


def _pip(command: str, *options: str | Path, pins: list[str]) -> None:
    """pip itself says what went wrong."""
    common = ("--quiet", "--disable-pip-version-check", "--no-deps")
    words = [sys.executable, "-m", "pip", command, *common, *options, *pins]
    if pins and subprocess.run(words, check=False).returncode:
        raise SystemExit("no wheelhouse was made; a package without wheels belongs in SOURCES of this script")


def requirements(wheel: Path) -> list[str]:
    """What a wheel says that it requires."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return HeaderParser().parsestr(archive.read(name).decode()).get_all("Requires-Dist", [])


def exact_versions() -> dict[str, str]:
    """The versions of ``constraints.txt``, and of what builds tiltbox, by canonical name."""
    lines = (ROOT / "constraints.txt").read_text().splitlines() + PYPROJECT["build-system"]["requires"]
    pins = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pins}


def needed(parts: str) -> list[str]:
    """What single stages and their tests need (``core``), or the workflow and developers, too (``all``)."""
    project, build = PYPROJECT["project"], PYPROJECT["build-system"]["requires"]
    extras = project["optional-dependencies"]
    if parts == "all":
        return project["dependencies"] + extras["test"] + extras["dev"] + build
    core = [each for each in project["dependencies"] if _canonical(Requirement(each)) not in WORKFLOW]
    return core + extras["test"] + build


def present_packages(lines: Iterable[str]) -> dict[str, str]:
    """Of names, or of what ``pip list --format=freeze`` prints, without torch.

    >>> present_packages(["numpy==2.5.2", "SciPy", "torch==2.11.0", "-e git+here"])
    {'numpy': '2.5.2', 'scipy': ''}
    """
    found = (re.match(r"([A-Za-z0-9][\w.-]*)(?:==(\S+))?", line) for line in lines)
    return {canonicalize_name(each[1]): each[2] or "" for each in found if each and each[1] != TORCH}


def collect(folder: Path, parts: str, target: Target) -> Selection:
    """Make the folder, whole or not at all; an earlier wheelhouse is replaced."""
    if folder.exists() and not (folder / LIST).exists():
        raise SystemExit(f"{folder}: not an earlier wheelhouse; name a new folder")
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    chosen = select(applying(needed(parts), target), exact_versions(), target, fetch_into(part, target))
    (part / LIST).write_text("".join(f"{line}\n" for line in chosen.lines()))
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return chosen


def _python(text: str) -> str:
    wanted = PYPROJECT["project"]["requires-python"]
    if not re.fullmatch(r"3\.\d+", text) or not SpecifierSet(wanted).contains(text):
        raise ArgumentTypeError(f"'{text}' is not a Python that tiltbox runs on, {wanted}, such as 3.12")
    return text


def _platform(text: str) -> str:
    if not PLATFORM.fullmatch(text):
        raise ArgumentTypeError(f"'{text}' is not like linux_x86_64, linux_aarch64 or macosx_14_0_arm64")
    return text


def _packages(text: str) -> dict[str, str]:
    try:
        return present_packages(Path(text).read_text().splitlines())
    except (OSError, UnicodeDecodeError):
        raise ArgumentTypeError(f"'{text}' is not a text file that can be read") from None


def parser() -> ArgumentParser:
    verb = ArgumentParser(description="Collect what tiltbox needs, except torch, as wheels.")
    verb.add_argument("folder", type=Path)
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    verb.add_argument("--python", type=_python, default=own, metavar="VERSION", help=f"default: {own}")
    own = re.sub(r"[-.]", "_", sysconfig.get_platform())
    verb.add_argument("--platform", type=_platform, default=own, metavar="NAME", help=f"default: {own}")
    help = "core: what single stages need; all: Snakemake, DVC, MLflow and developers' tools as well"
    verb.add_argument("--parts", choices=["core", "all"], default="core", help=help)
    help = "what `pip list --format=freeze` prints there: not collected where it fits, or without a version"
    verb.add_argument("--present", type=_packages, default={}, metavar="FILE", help=help)
    return verb


def main() -> None:
    options = parser().parse_args()
    target = Target(options.python, options.platform, options.present)
    chosen = collect(options.folder, options.parts, target)
    size = sum(wheel.stat().st_size for wheel in options.folder.glob("*.whl")) / 1e6
    print(f"{options.folder}: {len(chosen.carried)} wheels, {size:.0f} MB, for Python {target.python}")
    print(f"needed on the machine: {', '.join(sorted(chosen.left))}")


if __name__ == "__main__":
    main()
