"""A copy of the workflow's files, and a tiny dataset to run it on."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from hypothesis import HealthCheck, settings

from tiltbox.dota.classes import DOTA_V1_CLASSES

# Programs in the background start with these ignored, and would give that to those that the tests start.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

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
# Tests must not fail because a machine is slow.
settings.register_profile("tiltbox", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tiltbox")

# By the time they take, longest first.
LONGEST = (
    *("stages/test_train.py", "workflow/test_dvc.py", "training/test_parallel.py", "test_benchmarks.py"),
    *("workflow/test_dag.py", "workflow/test_kills.py", "workflow/test_adding_a_detector.py"),
    *("workflow/test_mlflow_server.py", "tracking/test_following.py", "workflow/test_finished.py"),
    *("stages/test_train_validation.py", "model/test_kernels.py", "stages/test_train_tasks.py"),
    *("workflow/test_dota_sample.py", "stages/test_learning.py", "stages/test_split.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, so that no core is left alone with one at the end."""
    ranks = {ROOT / "tests" / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(scope="session")
def copy_project() -> Callable[[Path], Path]:
    """Copies what is named here, one by one, into a folder: git is not needed, and results are left out."""

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


@pytest.fixture(scope="session")
def preload() -> Iterator[Callable[..., Path]]:
    """Starts programs that have imported everything (preloaded.py), and returns the folder with them."""
    with ExitStack() as stack:

        @cache
        def start(*names: str) -> Path:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for name in names:
                command = [sys.executable, ROOT / "tests/workflow/preloaded.py", name, folder]
                server = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE))
                while not os.access(folder / name, os.X_OK):
                    assert server.poll() is None, f"{name} has ended"
                    time.sleep(0.05)
            return folder

        yield start


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
    """Serves a folder over HTTP, at the address that it returns, until the test ends."""
    with ExitStack() as servers:
        yield lambda folder: servers.enter_context(serving(folder))


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closed() -> Iterator[str]:
    """The address of a port at which nobody listens or can listen while the test runs."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"


@pytest.fixture
def chromium(tmp_path) -> list[str]:
    """The beginning of a command that starts the browser, without a window and with its own profile."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs Chromium")
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    quiet += ["--disable-background-networking", "--disable-component-update"]
    return [program, *quiet, f"--user-data-dir={tmp_path / 'profile'}"]


class MlflowServer:
    """A real `mlflow ui`, started in a folder with no arguments except a port."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._log = folder / "server.log"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [Path(sys.executable).parent / "mlflow", "ui", "--port", str(self.port), "--workers", "1"],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,  # it has children: its whole group is ended
            )

    def wait(self) -> None:
        for _ in range(600):
            assert self._process.poll() is None, self._log.read_text()
            with suppress(requests.RequestException):
                requests.get(f"{self.address}/health", timeout=5).raise_for_status()
                return
            time.sleep(0.2)
        pytest.fail(f"no answer from the server: {self._log.read_text()}")

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def unused() -> int:
    """A port for a server that is started later."""
    return free_port()


@pytest.fixture(scope="module")
def start_mlflow() -> Iterator[Callable[..., MlflowServer]]:
    """Starts servers, which are killed at the end of the module."""
    started = []

    def start(folder: Path, port: int | None = None) -> MlflowServer:
        server = MlflowServer(folder, port)
        started.append(server)
        server.wait()
        return server

    yield start
    for server in started:
        server.kill()
