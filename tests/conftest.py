"""A copy of what makes the workflow, and a tiny dataset to run it on."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tiltbox.dota.classes import DOTA_V1_CLASSES

ROOT = Path(__file__).resolve().parents[1]
TINY = f"""\
name: tiny
source: {{render: {{size: 128, images: {{train: 4, val: 1, test: 1}}}}}}
train_splits: [train]
test_split: val
classes: [{", ".join(DOTA_V1_CLASSES)}]
patch: {{size: 128, overlap: 24}}
schedule: smoke
"""
# No test fails because a machine is slow.
settings.register_profile("tiltbox", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tiltbox")

LONGEST = ("workflow", "test_train.py", "test_parallel.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, so that no core is left alone with one at the end."""
    items.sort(key=lambda item: not any(name in item.path.parts for name in LONGEST))


@pytest.fixture(scope="session")
def copy_project() -> Callable[[Path], Path]:
    """Copies into a folder what is named here, one by one: there need be no git, and no results come."""

    def copy(folder: Path) -> Path:
        for name in ("configs", "profiles", "workflow"):
            shutil.copytree(ROOT / name, folder / name)
        for name in ("Snakefile", "dvc.yaml", ".gitignore", ".dvcignore"):
            shutil.copy(ROOT / name, folder)
        for name in ("config", ".gitignore", "plots"):
            _copy(ROOT / ".dvc" / name, folder / ".dvc" / name)
        (folder / "configs/datasets/tiny.yaml").write_text(TINY)
        return folder

    return copy


def _copy(source: Path, to: Path) -> None:
    to.parent.mkdir(exist_ok=True)
    shutil.copytree(source, to) if source.is_dir() else shutil.copy(source, to)


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    handler = partial(QuietHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """Puts a folder on the web, at the address it returns, until the test ends."""
    with ExitStack() as servers:
        yield lambda folder: servers.enter_context(serving(folder))


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closed() -> Iterator[str]:
    """The address of a port at which nobody listens, and nobody can while the test runs."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"
