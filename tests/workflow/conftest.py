"""Snakemake and DVC that start at once; a real browser, if one is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from programs import BIN, program

PYTHON_OF_SNAKEMAKE = """\
case "$1 $2" in
    "-m dvc" | "-m snakemake") program=$2; shift 2; exec {folder}/$program "$@";;
esac
exec {python} "$@"
"""


@pytest.fixture(scope="session")
def preloaded(preload) -> Iterator[None]:
    """Puts Snakemake and DVC that start at once first in PATH, and then the programs of this Python."""
    with pytest.MonkeyPatch.context() as patch:
        folder = preload("snakemake", "dvc", "stand_in")
        program(folder / "python", PYTHON_OF_SNAKEMAKE.format(folder=folder, python=sys.executable))
        patch.setenv("PATH", os.pathsep.join([str(folder), str(BIN), os.environ["PATH"]]))
        yield


class Browser:
    """One page, 1920 pixels wide and 1080 high, controlled over a pipe with the DevTools protocol."""

    def __init__(self, chromium: list[str]) -> None:
        command = [*chromium, "--remote-debugging-pipe"]
        to_browser, from_browser = os.pipe(), os.pipe()
        self._process = subprocess.Popen(
            ["bash", "-c", 'exec "$@" 3<&$IN 4>&$OUT', "bash", *command],  # it reads file 3 and writes file 4
            env={**os.environ, "IN": str(to_browser[0]), "OUT": str(from_browser[1])},
            pass_fds=(to_browser[0], from_browser[1]),
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser[0])
        os.close(from_browser[1])
        self._to, self._from = to_browser[1], from_browser[0]
        self._count, self._read, self._session = 0, b"", {}
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = {"sessionId": session}
        size = {"width": 1920, "height": 1080, "deviceScaleFactor": 1, "mobile": False}
        self._ask("Emulation.setDeviceMetricsOverride", **size)

    def open(self, address: str) -> None:
        """As if it were typed into a new window: MLflow's pages differ only behind the #."""
        self._ask("Page.navigate", url="about:blank")
        self._ask("Page.navigate", url=address)

    def evaluate(self, expression: str) -> Any:
        answer = self._ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait for a JavaScript expression to be true."""
        for _ in range(300):
            if self.evaluate(condition):
                return
            time.sleep(0.2)
        pytest.fail(f"{condition} never was true; the page says {self.evaluate('document.body.innerText')}")

    def wait_for_words(self, words: str) -> None:
        self.wait_for(f"(document.body?.innerText ?? '').includes({json.dumps(words)})")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def _ask(self, method: str, **parameters: object) -> dict:
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters, **self._session}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._count:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict:
        while b"\0" not in self._read:
            piece = os.read(self._from, 1 << 20)
            assert piece, "the browser has ended"
            self._read += piece
        message, self._read = self._read.split(b"\0", 1)
        return json.loads(message)


@pytest.fixture
def browser(chromium) -> Iterator[Browser]:
    opened = Browser(chromium)
    try:
        yield opened
    finally:
        opened.close()
