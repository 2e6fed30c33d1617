"""Writing outputs whole or not at all.

Everything is written beside its final place under a temporary name and renamed when complete, so a
killed process leaves no half-written output, and a file that is hard-linked elsewhere (into DVC's
cache, say) is replaced rather than written through.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tiltbox.errors import OutputError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to ``path`` when the block succeeds."""
    path = Path(path)
    require_writable(path.parent)
    if path.is_dir():
        raise OutputError(path, "is a folder", "name a file with --out")
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling folder; it takes the place of ``path`` when the block succeeds."""
    path = Path(path)
    require_writable(path.parent)
    if path.exists() and not path.is_dir():
        raise OutputError(path, "is a file", "name a folder with --out")
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
            os.replace(path, old / "old")
            os.replace(temporary, path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON with a stable layout: two spaces, keys in the given order, a final newline."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def require_writable(folder: Path) -> None:
    """Create ``folder`` if needed and raise OutputError where nothing can be written into it."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        remedy = "choose another folder with --out"
        raise OutputError(folder, f"cannot write here ({error.strerror})", remedy) from error


def require_space(folder: Path, needed: int) -> None:
    """Raise OutputError unless the file system of ``folder`` has ``needed`` bytes free."""
    folder = Path(folder)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            folder,
            f"needs about {needed / 2**30:.1f} GiB, but only {free / 2**30:.1f} GiB are free",
            "free some space or choose another folder with --out",
        )
