"""Where a result comes from: a ``provenance.json`` record for each run of a stage.

A record names every file that a stage read and wrote with a hash of its content, relative to the folder that
the record is in, so that a project can be moved as a whole. Records form a chain: one stage reads what
another wrote. ``tiltbox verify`` follows the chain from a leaderboard back to the images.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from tiltbox.errors import DataError
from tiltbox.files.atomic import write_json

SUFFIX = "provenance.json"
JOB = "TILTBOX_JOB"  # the variable that tells a stage the key of its job
LABEL_FILES, TASK1_FILES = "*.[tT][xX][tT]", "Task1_*.txt"  # patterns of folders that are read as a whole
PACKAGES = (
    *("torch", "onedl-mmengine", "onedl-mmcv", "onedl-mmdetection", "onedl-mmrotate", "numpy", "numba"),
    *("opencv-python-headless", "shapely", "pyarrow", "pillow", "tifffile"),
)


class Folder(BaseModel):
    """A folder in which every matching file was read: a further one would have been read, too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    pattern: str


class Provenance(BaseModel):
    """One run of a stage.

    Attributes:
        job: What the workflow asked for, as :mod:`tiltbox.freshness` puts it; None outside the workflow.
        command: The command as typed; None if the stage was called from Python.
        started: UTC.
        commit, changed: The commit of the current folder's Git repository when the stage began, and whether
            files differed from it; None without a repository.
        processor, gpu: Model names; ``kernels`` is the instruction set for which PyTorch chose its kernels.
        settings: The settings as resolved.
        inputs, outputs: Paths relative to the record's folder, or addresses, with hashes of the content.
        folders: Folders that were read as a whole.
        checksum: Checksum of the rest of the record.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    job: str | None = None
    command: str | None
    started: str
    seconds: float
    commit: str | None
    changed: bool | None
    python: str
    system: str
    processor: str
    cores: int
    kernels: str | None
    gpu: str | None
    versions: dict[str, str]
    settings: dict[str, JsonValue]
    seed: int | None
    inputs: dict[str, str]
    outputs: dict[str, str]
    folders: tuple[Folder, ...]
    checksum: str = ""

    def sealed(self) -> Provenance:
        return self.model_copy(update={"checksum": self._hash()})

    @property
    def intact(self) -> bool:
        return self.checksum == self._hash()

    def _hash(self) -> str:
        content = self.model_dump(mode="json", exclude={"checksum"})
        return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


class Begun:
    """A stage at work: made when it begins, told what it :meth:`reads`, and asked to :meth:`record` the end.

    Files are hashed and the commit is noted before the work, since both may change meanwhile.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self._started, self._clock = datetime.now(UTC), time.monotonic()
        self._commit, self._changed = git_state()
        self._inputs: dict[Path | str, str] = {}
        self._folders: list[tuple[Path, str]] = []

    def reads(self, *paths: Path, pattern: str | None = None) -> None:
        """Note files or, with a ``pattern``, folders that are read as a whole."""
        if pattern is None:
            self._inputs |= {path: file_hash(path) for path in paths}
            return
        self._folders += [(folder, pattern) for folder in paths]
        self._inputs |= {path: file_hash(path) for folder in paths for path in matching(folder, pattern)}

    def knows(self, hashes: Mapping[Path | str, str]) -> None:
        """Note files, or addresses, whose hashes are known already."""
        self._inputs |= hashes

    def record(
        self,
        place: Path,
        outputs: Iterable[Path],
        *,
        settings: Mapping[str, Any] | None = None,
        seed: int | None = None,
        gpu: str | None = None,
    ) -> Provenance:
        """Write the record to ``place``, :func:`beside` what the stage wrote."""
        folder = Path(place).parent
        found = Provenance(
            stage=self.stage,
            job=os.environ.get(JOB),
            command=command_line(),
            started=self._started.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - self._clock, 1),
            commit=self._commit,
            changed=self._changed,
            python=platform.python_version(),
            system=platform.platform(),
            processor=processor(),
            cores=os.cpu_count() or 1,
            kernels=_kernels(),
            gpu=gpu,
            versions=versions(),
            settings=json.loads(json.dumps(settings or {}, default=str)),
            seed=seed,
            inputs={_relative(path, folder): found for path, found in self._inputs.items()},
            outputs={_relative(path, folder): file_hash(path) for path in outputs},
            folders=tuple(Folder(path=_relative(f, folder), pattern=p) for f, p in self._folders),
        ).sealed()
        write_json(place, found.model_dump(mode="json"))
        return found


def located(record: Path, name: str | Path) -> Path:
    """A file that a record names: absolute, without ``..``, links as they are."""
    return Path(os.path.abspath(record.parent / name))


def beside(out: Path) -> Path:
    """Where the record of an output is.

    >>> beside(Path("evaluate/metrics.json")).as_posix(), beside(Path("xs/merge")).as_posix()
    ('evaluate/metrics.json.provenance.json', 'xs/merge.provenance.json')
    """
    return out.with_name(f"{out.name}.{SUFFIX}")


def read_provenance(path: Path) -> Provenance:
    """
    Raises:
        DataError: The file cannot be read or is not a valid stage record.
    """
    try:
        return Provenance.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check the path") from None
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"is not a valid stage record ({'.'.join(map(str, first['loc']))}: {first['msg']})"
        raise DataError(path, problem, "run the stage again") from None


def images_behind(record: Path) -> set[str] | None:
    """The hashes of the images from which the patches that a stage read were cut; None if not known.

    If other patches were cut since, they are unknown.
    """
    if not record.is_file():
        return None
    for name, expected in read_provenance(record).inputs.items():
        manifest = located(record, name)
        cut = beside(manifest.parent)
        if manifest.name == "manifest.json" and cut.is_file():
            split = read_provenance(cut)
            written = {located(cut, path): found for path, found in split.outputs.items()}
            if written.get(manifest) == expected:
                images = (path for path in split.inputs if PurePosixPath(path).parent.name == "images")
                return {split.inputs[path] for path in images}
    return None


def matching(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder that match a pattern, sorted; hidden ones are left out."""
    return sorted(path for path in folder.glob(pattern) if path.is_file() and path.name[0] != ".")


def file_hash(path: Path) -> str:
    """BLAKE2b of the content, 128 bits, as hex."""
    found = hashlib.blake2b(digest_size=16)
    with Path(path).open("rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()


@cache
def git_state() -> tuple[str | None, bool | None]:
    """The commit of the current folder's repository, and whether tracked files differ from it."""
    commands = ["git", "rev-parse", "HEAD"], ["git", "--no-optional-locks", "status", "--porcelain", "-uno"]
    try:
        commit, status = (
            subprocess.run(command, capture_output=True, text=True, check=True).stdout for command in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return commit.strip(), bool(status.strip())


@cache
def processor() -> str:
    """The name of the model, as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@cache
def versions() -> dict[str, str]:
    """Versions of tiltbox and of what its results depend on."""
    found = {"tiltbox": _version("tiltbox")} | {name: _version(name) for name in PACKAGES}
    return {name: number for name, number in found.items() if number}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _kernels() -> str | None:
    """The instruction set of PyTorch, if it is imported already: importing it takes seconds."""
    torch = sys.modules.get("torch")
    return torch.backends.cpu.get_cpu_capability() if torch else None


def command_line() -> str | None:
    """The command as typed; None if tiltbox was not called as a command."""
    program = Path(sys.argv[0]) if sys.argv else Path()
    ours = program.name == "tiltbox" or program.parts[-2:] == ("tiltbox", "__main__.py")
    return shlex.join(["tiltbox", *sys.argv[1:]]) if ours else None


def _relative(path: Path | str, folder: Path) -> str:
    """An address stays as it is."""
    if isinstance(path, str):
        return path
    return Path(os.path.relpath(os.path.abspath(path), os.path.abspath(folder))).as_posix()
