"""What a result was made from, with what and by what: ``provenance.json``, one for each run of a stage.

A record names every file that a stage read and wrote with a hash of its content, relative to the folder that
the record lies in, so that a project can be moved as a whole. Records chain: what one stage wrote another has
read. ``tiltbox verify`` follows the chain from a leaderboard back to the images.
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
from tiltbox.files import write_json

SUFFIX = "provenance.json"
LABEL_FILES, TASK1_FILES = "*.[tT][xX][tT]", "Task1_*.txt"  # patterns of folders that are read as a whole
PACKAGES = (
    *("torch", "onedl-mmengine", "onedl-mmcv", "onedl-mmdetection", "onedl-mmrotate", "numpy", "numba"),
    *("opencv-python-headless", "shapely", "pyarrow", "pillow", "tifffile"),
)


class Folder(BaseModel):
    """A folder of which every file that matches was read: one more would have been, too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    pattern: str


class Provenance(BaseModel):
    """One run of a stage.

    Attributes:
        command: As it was typed; None where the stage was called from Python.
        started: UTC.
        commit, changed: Of the project's Git repository, and whether files differed from it; None where
            there is none.
        processor, gpu: Model names; ``kernels`` is the instruction set that PyTorch chose its own for.
        settings: As they were resolved.
        inputs, outputs: Paths relative to the record's folder (or addresses), with hashes of the content.
        folders: Those that were read as a whole.
        checksum: Of all the rest of the record.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
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
    """A stage at work: to be made when it begins, and asked to :meth:`record` when all is written."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self._started, self._clock = datetime.now(UTC), time.monotonic()

    def record(
        self,
        place: Path,
        *,
        inputs: Iterable[Path | str] = (),
        outputs: Iterable[Path] = (),
        folders: Iterable[tuple[Path, str]] = (),
        settings: Mapping[str, Any] | None = None,
        seed: int | None = None,
        gpu: str | None = None,
        hashes: Mapping[Path, str] | None = None,
    ) -> Provenance:
        """Write the record.

        Args:
            place: The file to write, :func:`beside` what the stage wrote.
            inputs, outputs: Files; an input may be an address as well.
            folders: Folders that were read as a whole, with a pattern; files that match are inputs.
            hashes: Of files whose hash is known already.
        """
        place, folders, known = Path(place), list(folders), hashes or {}
        read = [*inputs, *(path for folder, pattern in folders for path in matching(folder, pattern))]
        commit, changed = git_state()
        found = Provenance(
            stage=self.stage,
            command=_command(),
            started=self._started.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - self._clock, 1),
            commit=commit,
            changed=changed,
            python=platform.python_version(),
            system=platform.platform(),
            processor=processor(),
            cores=os.cpu_count() or 1,
            kernels=_kernels(),
            gpu=gpu,
            versions=versions(),
            settings=json.loads(json.dumps(settings or {}, default=str)),
            seed=seed,
            inputs=_hashed(read, place.parent, known),
            outputs=_hashed(outputs, place.parent, known),
            folders=tuple(Folder(path=_relative(f, place.parent), pattern=p) for f, p in folders),
        ).sealed()
        write_json(place, found.model_dump(mode="json"))
        return found


def beside(out: Path) -> Path:
    """Where the record of an output lies: ``merge.provenance.json`` beside ``merge``.

    >>> beside(Path("evaluate/metrics.json")).as_posix(), beside(Path("xs/merge")).as_posix()
    ('evaluate/metrics.provenance.json', 'xs/merge.provenance.json')
    """
    return out.with_name(f"{out.stem if out.suffix in ('.json', '.parquet') else out.name}.{SUFFIX}")


def read_provenance(path: Path) -> Provenance:
    """
    Raises:
        DataError: It cannot be read, or is no record.
    """
    try:
        return Provenance.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check the path") from None
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"is no record of a stage ({'.'.join(map(str, first['loc']))}: {first['msg']})"
        raise DataError(path, problem, "run the stage again") from None


def images_behind(record: Path) -> set[str] | None:
    """The hashes of the images that the patches were cut from which a stage read; None where not known."""
    if not record.is_file():
        return None
    found = None
    for name in read_provenance(record).inputs:
        manifest = record.parent / name
        cut = beside(manifest.parent)
        if manifest.name == "manifest.json" and cut.is_file():
            inputs = read_provenance(cut).inputs
            found = {value for path, value in inputs.items() if PurePosixPath(path).parent.name == "images"}
    return found


def matching(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder that a pattern fits, hidden ones apart, sorted."""
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
    commands = ["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"]
    try:
        commit, status = (
            subprocess.run(command, capture_output=True, text=True, check=True).stdout for command in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return commit.strip(), bool(status.strip())


@cache
def processor() -> str:
    """The model's name, as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@cache
def versions() -> dict[str, str]:
    """Of tiltbox and of what its results depend on."""
    found = {"tiltbox": _version("tiltbox")} | {name: _version(name) for name in PACKAGES}
    return {name: number for name, number in found.items() if number}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _kernels() -> str | None:
    """Asked of PyTorch where it is at work: importing it takes seconds."""
    torch = sys.modules.get("torch")
    return torch.backends.cpu.get_cpu_capability() if torch else None


def _command() -> str | None:
    name = Path(sys.argv[0]).name if sys.argv else ""
    return shlex.join(["tiltbox", *sys.argv[1:]]) if name in ("tiltbox", "__main__.py") else None


def _hashed(paths: Iterable[Path | str], folder: Path, known: Mapping[Path, str]) -> dict[str, str]:
    return {
        _relative(path, folder): known.get(path) or ("" if isinstance(path, str) else file_hash(path))
        for path in paths
    }


def _relative(path: Path | str, folder: Path) -> str:
    """An address stays as it is."""
    if isinstance(path, str):
        return path
    return Path(os.path.relpath(os.path.abspath(path), os.path.abspath(folder))).as_posix()
