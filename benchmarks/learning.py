"""How well detectors learn from small data: ``python benchmarks/learning.py DATA [--peer PYTHON]``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from effects import FAILED, Row, compared, recipes
from measure import machine, table
from peer import Peer
from precision import precisions
from trainings import (
    MINI,
    SCORES,
    Failed,
    Ground,
    Score,
    Trainer,
    changed,
    folder_ground,
    lasting,
    mini_ground,
    say,
    stopped,
)

from tiltbox.errors import TiltboxError
from tiltbox.settings.datasets import Patch
from tiltbox.settings.schedules import Schedule, find_schedule

FEW, MORE = 4, 16  # steps of two trainings that only measure the speed


def main() -> None:
    chosen = _options()
    try:
        schedule = _schedule(chosen)
        rows = _rows(chosen, schedule)
        with tempfile.TemporaryDirectory() as name:
            trainer = Trainer(_ground(chosen, Path(name)), chosen.variant, chosen.gpus)
            trainer.ground.split()
            if rows:
                found, complete = compared(rows, trainer, chosen.jobs)
            else:
                found, complete = _side_by_side(chosen, trainer, schedule)
    except (Failed, TiltboxError) as error:
        sys.exit(str(error))
    print(f"{machine('torch', 'onedl-mmengine')}\n\n{found}")
    sys.exit(0 if complete else 1)


def _options() -> Namespace:
    options = argparse.ArgumentParser(description=__doc__)
    add = options.add_argument
    add("data", metavar="DATA", help="folder with train and val, each with images and labelTxt; or mini")
    add("--classes", nargs="+", metavar="NAME", help="of the folder (default: DOTA-v1.0's)")
    add("--variant", default="yoloms-xs-previous")
    add("--schedule", metavar="NAME_OR_FILE", help="the recipe (default: small-cpu, or mini for mini)")
    add("--size", type=int, metavar="PX", help="side that detectors see (default: the schedule's)")
    add("--patch", type=int, default=512, metavar="PX", help="side of a patch of the folder (default: 512)")
    add("--overlap", type=int, default=64, metavar="PX", help="of such patches (default: 64)")
    add("--epochs", type=int, metavar="N", help="of the longest training")
    add("--gpus", type=int, choices=(0, 1), default=0, help="of each training of tiltbox (default: 0)")
    _side_by_side_options(options.add_argument_group("side by side").add_argument)
    _effects_options(options.add_argument_group("parts of the recipe, precision").add_argument)
    return options.parse_args()


def _side_by_side_options(add: Callable) -> None:
    add("--peer", type=Path, metavar="PYTHON", help="an interpreter that has Ultralytics")
    help = "side that whole images are resized to for it (default: that of tiltbox's patches)"
    add("--peer-size", type=int, metavar="PX", help=help)
    help = "CPU time of the longest training, unless --epochs says how long it is (default: 15)"
    add("--minutes", type=float, default=15, metavar="M", help=help)
    add("--points", type=int, default=3, metavar="N", help="trainings, in even steps of length (default: 3)")


def _effects_options(add: Callable) -> None:
    add("--effects", action="store_true", help="how much each part of the recipe brings")
    add("--precisions", action="store_true", help="instead, what the precision of the layers changes")
    help = "stop after so many, whatever the epochs; mosaics then go on to the end"
    add("--steps", type=int, metavar="N", help=help)
    add("--jobs", type=int, default=1, metavar="N", help="trainings at a time (default: 1)")
    add("--only", nargs="+", metavar="ROW", help="only these rows, named as in the table")


def _schedule(chosen: Namespace) -> Schedule:
    chosen.schedule = chosen.schedule or (MINI if chosen.data == MINI else "small-cpu")
    schedule = find_schedule(chosen.schedule)
    if chosen.size:
        schedule = changed(schedule, {"image_size": chosen.size})
    return lasting(schedule, chosen.epochs) if chosen.epochs else schedule


def _ground(chosen: Namespace, folder: Path) -> Ground:
    if chosen.data == MINI:
        return mini_ground(folder)
    patch = Patch(size=chosen.patch, overlap=chosen.overlap)
    return folder_ground(Path(chosen.data), folder, chosen.classes, patch)


def _rows(chosen: Namespace, schedule: Schedule) -> dict[str, Row]:
    """The rows of a table of effects or precisions; none of any other."""
    if chosen.steps:
        schedule = stopped(schedule, chosen.steps)
    if chosen.effects and chosen.precisions:
        sys.exit("choose one of --effects and --precisions")
    if chosen.effects:
        rows = recipes(Path(chosen.schedule).stem, schedule)
    elif chosen.precisions:
        rows = precisions(schedule, chosen.gpus)
    else:
        return {}
    if unknown := set(chosen.only or ()) - set(rows):
        sys.exit(f"--only: unknown row {', '.join(sorted(unknown))}; choose from: {'; '.join(rows)}")
    return {name: row for name, row in rows.items() if name in (chosen.only or rows)}


@dataclass(frozen=True)
class Ours:
    """Trainings of tiltbox, of any length, by one recipe."""

    trainer: Trainer
    schedule: Schedule

    @property
    def name(self) -> str:
        return f"tiltbox, {self.trainer.variant}"

    def epochs_within(self, seconds: float) -> int:
        """How many epochs fit: by the time of a step in a running training, and the time to get there."""
        few, more = (self._seconds_of(steps) for steps in (FEW, MORE))
        step = max((more - few) / (MORE - FEW), 1e-3)
        epoch = step * self.trainer.steps_of_epoch(self.schedule) * self._early_saving()
        return max(1, int((seconds - (few - FEW * step)) / epoch))

    def result(self, epochs: int) -> tuple[float, Score]:
        out = self.trainer.ground.folder / f"ours-{epochs}"
        return self.trainer.train(out, lasting(self.schedule, epochs)), self.trainer.score(out)

    def _early_saving(self) -> float:
        """The average time of an epoch, relative to one on images in full size."""
        area = (self.schedule.early_size / self.schedule.image_size) ** 2
        return 1 - self.schedule.early_share * (1 - area)

    def _seconds_of(self, steps: int) -> float:
        return self.trainer.train(self.trainer.ground.folder / f"pace-{steps}", stopped(self.schedule, steps))


def _side_by_side(chosen: Namespace, trainer: Trainer, schedule: Schedule) -> tuple[str, bool]:
    """The table, and whether all trainings finished."""
    contenders: list[Ours | Peer] = [Ours(trainer, schedule)]
    if chosen.peer:
        peer = Peer(chosen.peer, trainer.ground, chosen.peer_size or schedule.image_size)
        peer.prepare()
        contenders.append(peer)
    rows = [row for contender in contenders for row in _curve(chosen, contender)]
    complete = not any(FAILED in row for row in rows)
    return table(["", "epochs", "CPU s", *SCORES], rows), complete


def _curve(chosen: Namespace, contender: Ours | Peer) -> Iterator[list[str]]:
    """A row for each length; the learning rate ends at about 0, so each is a separate training."""
    try:
        most = chosen.epochs or contender.epochs_within(60 * chosen.minutes)
    except Failed as error:
        yield _failed(contender, "?", error)
        return
    for epochs in sorted({max(1, round(most * n / chosen.points)) for n in range(1, chosen.points + 1)}):
        yield _point(contender, epochs)


def _point(contender: Ours | Peer, epochs: int) -> list[str]:
    try:
        cpu, score = contender.result(epochs)
    except Failed as error:
        return _failed(contender, str(epochs), error)
    row = [contender.name, str(epochs), f"{cpu:.0f}", *score.cells()]
    say("  ".join(row))
    return row


def _failed(contender: Ours | Peer, epochs: str, error: Failed) -> list[str]:
    say(f"{contender.name}, {epochs} epochs: {FAILED}: {error}")
    return [contender.name, epochs, FAILED] + [""] * len(SCORES)


if __name__ == "__main__":
    main()
