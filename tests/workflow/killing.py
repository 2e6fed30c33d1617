"""Kills commands at random moments, runs them again until they finish, and compares what they leave.

``python tests/workflow/killing.py FOLDER --kills 100 --seed 0`` does so with the whole workflow on a tiny
set, with real stages, and with a training of two processes. A line for each kill says what was killed.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tiltbox.dota.classes import DOTA_V1_CLASSES

ROOT = Path(__file__).resolve().parents[2]
MARK = "TILTBOX_KILLING"  # a variable in the environment of everything that is started here
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
MADE = ("data", "results", "out")  # folders of a command's files, if it has them
PATIENCE = 180  # seconds after which a command that was killed, or an orphan of it, must have ended
VARIANT = "yoloms-xs-current"
TINY = {
    "name": "tiny",
    "source": {"render": {"size": 128, "images": {"train": 6, "val": 2, "test": 1}}},
    "train_splits": ["train"],
    "test_split": "val",
    "classes": list(DOTA_V1_CLASSES),
    "patch": {"size": 128, "overlap": 24},
}
# Everything that has a state: Muon, averages, a falling rate, mosaics and small images at first, validation.
SCHEDULE = {
    "processes": 1,
    "batch": 2,
    "epochs": 4,
    "image_size": 128,
    "early_scale": 0.5,
    "base_lr": 1e-3,
    "base_batch": 2,
    "muon_lr": 1e-2,
    "warmup_steps": 3,
    "constant_share": 0,
    "decay": "linear",
    "ema_warmup": 5,
    "mosaic": 0.7,
    "mosaic_share": 0.75,
    "validation": {"every": 2, "patches": 2},
    "pretrained": False,
    "threads": 1,
    "checkpoint_minutes": 0.02,
    "workers": 1,
}


@dataclass
class Killer:
    """Runs a command until it finishes, and kills it, or a process of it, meanwhile.

    Args:
        at: The folder in which it runs; its output goes to ``killed.log`` there.
        longest: Seconds until the latest kill.
    """

    command: list[str]
    at: Path
    draw: random.Random
    longest: float
    say: Callable[[str], None] = print
    kills: int = 0
    _mark: str = field(default_factory=lambda: f"{os.getpid()}-{time.monotonic_ns()}")

    def to_the_end(self, most: int) -> None:
        """Run it until it finishes, with as many kills at most."""
        until = self.kills + most
        while True:
            inherited = bool(self._alive())
            code = self._once(kill=self.kills < until)
            if code == 0:
                self._wait_for_orphans()
                return
            if code is not None and not inherited:
                raise AssertionError(f"{self.command[0]} failed by itself ({code}): {self.at}/killed.log")
            if code is not None or self.draw.random() < 0.5:  # otherwise the next one meets the orphans
                self._wait_for_orphans()

    def _once(self, *, kill: bool) -> int | None:
        """The exit code of a run that came to its end by itself; None if it was killed."""
        with (self.at / "killed.log").open("a") as output:
            process = subprocess.Popen(
                self.command,
                cwd=self.at,
                env=os.environ | {MARK: self._mark, "CUDA_VISIBLE_DEVICES": ""},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        if not kill:
            return process.wait(10 * PATIENCE)
        delay = self.draw.uniform(0, self.longest)
        with suppress(subprocess.TimeoutExpired):
            return process.wait(delay)
        return None if self._kill(process, delay) else process.wait(PATIENCE)

    def _kill(self, process: subprocess.Popen, delay: float) -> bool:
        """Send a signal and wait for the end; whether anything was hit and the command did not succeed."""
        number, whom = self.draw.choice(SIGNALS), self.draw.choice(["the command", "one process", "all"])
        alive = self._alive()
        others = [pid for pid in alive if pid != process.pid]
        hit = {
            "the command": [process.pid],
            "one process": [self.draw.choice(others or [process.pid])],
            "all": list(alive),
        }[whom]
        names = ", ".join(sorted({alive.get(pid, "?") for pid in hit}))
        for pid in hit:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        self.kills += 1
        code = process.wait(PATIENCE)
        self.say(
            f"kill {self.kills}: {signal.Signals(number).name} after {delay:.1f} s to {whom} of {len(alive)}"
            f" ({names}): exit code {code}, {len(self._alive())} orphans"
        )
        return code != 0

    def _alive(self) -> dict[int, str]:
        """Processes of this command and of its former runs, each with a short name."""
        wanted = f"{MARK}={self._mark}".encode()
        return {pid: _name(pid) for pid in _processes() if wanted in _read(pid, "environ").split(b"\0")}

    def _wait_for_orphans(self) -> None:
        until = time.monotonic() + PATIENCE
        while alive := self._alive():
            assert time.monotonic() < until, f"they do not end: {alive}"
            time.sleep(0.1)


def _processes() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def _read(pid: int, name: str) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""


def _name(pid: int) -> str:
    """The program and, of ours, the stage."""
    words = [Path(word).name for word in _read(pid, "cmdline").decode(errors="replace").split("\0") if word]
    known = ("snakemake", "tiltbox", "tiltbox.training.worker", "torch.distributed.run")
    at = next((at for at, word in enumerate(words) if word in known), 0)
    return " ".join(words[at : at + 2])[:40] if words else "ended"


# comparison ---------------------------------------------------------------------------------------------

SPANS = re.compile(r"(data-sort=\"[\d.]+\">)?\b\d[\d.]* (s|min|h)\b( \d+ (s|min)\b)?")
DATES = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d")


def differences(one: Path, two: Path) -> list[str]:
    """Files of two folders that are missing in one or differ in more than recorded times."""
    names = [{str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()} for top in (one, two)]
    assert names[0], f"{one} is empty"
    alone = [f"{name}: only in one of both" for name in names[0] ^ names[1]]
    return sorted(
        alone + [name for name in names[0] & names[1] if _content(one / name) != _content(two / name)]
    )


def _content(path: Path) -> Any:
    """What must be equal: all bytes, apart from times and hashes of files that contain times."""
    match path.suffix:
        case ".json":
            return _without_times(json.loads(path.read_text()))
        case ".csv":
            rows = csv.DictReader(io.StringIO(path.read_text()))
            return [{key: value for key, value in row.items() if "seconds" not in key} for row in rows]
        case ".md" | ".html":
            text = DATES.sub("DATE", SPANS.sub("TIME", path.read_text()))
            return re.sub(r"[ -]+", " ", text)  # columns are as wide as the times
        case _:
            return path.read_bytes()


def _without_times(content: Any) -> Any:
    if isinstance(content, list):
        return [_without_times(each) for each in content]
    if not isinstance(content, dict):
        return content
    kept = {key: value for key, value in content.items() if key not in ("seconds", "started", "checksum")}
    hashed = {key: sorted(kept[key]) for key in ("inputs", "outputs") if isinstance(kept.get(key), dict)}
    return {key: _without_times(value) for key, value in (kept | hashed).items()}


# what is killed -----------------------------------------------------------------------------------------


def copied_project(folder: Path) -> Path:
    """What Snakemake needs, with a tiny set and one variant."""
    folder.mkdir(parents=True)
    for name in ("configs", "profiles", "workflow"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "Snakefile", folder)
    (folder / "kills.yaml").write_text(yaml.safe_dump(SCHEDULE))
    tiny = TINY | {"schedule": "kills.yaml"}
    (folder / "configs/datasets/tiny.yaml").write_text(yaml.safe_dump(tiny))
    return folder


def workflow() -> list[str]:
    settings = ["dataset=tiny", "gpus=0", "track=false", f'variants=["{VARIANT}"]']
    return [_program("snakemake"), "--cores", "2", "--config", *settings]


def training(patches: Path, schedule: Path, *options: str) -> list[str]:
    """A training into the folder ``out`` of the working directory."""
    places = ["--patches", str(patches / "train"), "--validate", str(patches / "val"), "--out", "out"]
    rest = ["--schedule", str(schedule), "--gpus", "0", *options]
    return [_program("tiltbox"), "train", VARIANT, *places, *rest]


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def undisturbed(command: list[str], at: Path) -> float:
    """Run a command to its end; returns the seconds that it took."""
    begun = time.monotonic()
    with (at / "undisturbed.log").open("w") as output:
        subprocess.run(
            command,
            cwd=at,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
            stdout=output,
            stderr=output,
            check=True,
        )
    return time.monotonic() - begun


def kill_again_and_again(
    what: str, command: list[str], place: Callable[[str], Path], kills: int, options: argparse.Namespace
) -> None:
    """Run and kill a command until this many kills are reached, and compare its results each time.

    Args:
        place: Makes a folder of this name to run it in.
    """
    once = place("undisturbed")
    seconds = undisturbed(command, once)
    made = [name for name in MADE if (once / name).exists()]
    tell(f"{what}, undisturbed: {seconds:.0f} s")
    done = compared = 0
    while done < kills:
        at = place(f"killed-{compared + 1}")
        killer = Killer(command, at, options.draw, options.within or seconds / 3, tell)
        killer.to_the_end(kills - done)
        odd = [each for name in made for each in differences(once / name, at / name)]
        assert not odd, f"{at} differs from {once}: {odd}"
        done, compared = done + killer.kills, compared + 1
        tell(f"finished after {killer.kills} kills, all files equal; {done} kills so far")
        shutil.rmtree(at)
    tell(f"{what}: {done} kills, {compared} finished runs, all files equal to those of an undisturbed run")


def tell(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a new folder to work in")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the random moments")
    parser.add_argument("--within", type=float, metavar="SECONDS", help="the latest kill after a start")
    options = parser.parse_args()
    tell(f"seed {options.seed}")
    options.draw, folder = random.Random(options.seed), options.folder.resolve()
    folder.mkdir(parents=True)
    of_workflow = round(options.kills * 0.7)
    kill_again_and_again(
        "workflow", workflow(), lambda name: copied_project(folder / name), of_workflow, options
    )
    made = folder / "undisturbed"
    of_two = training(made / "data/tiny/patches", made / "kills.yaml", "--processes", "2")

    def empty(name: str) -> Path:
        (folder / "training" / name).mkdir(parents=True)
        return folder / "training" / name

    kill_again_and_again("two processes", of_two, empty, options.kills - of_workflow, options)


if __name__ == "__main__":
    main()
