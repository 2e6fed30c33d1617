"""How a running workflow is shown, with artificial events and logs."""

from __future__ import annotations

import io
import json
import time
from logging import INFO, LogRecord
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from snakemake_logger_plugin_tiltbox import LogHandler
from tiltbox.__main__ import main
from tiltbox.watching import SILENT, Job, Run, Screen, last_line, lines, read_states

RUN = "yoloms-xs-current"
LOG = Path("logs/tiny") / RUN / "train.log"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    LOG.parent.mkdir(parents=True)
    LOG.write_text("reading\nepoch 1, step 50 of 414, 0:05:52 left: loss 13.480; 4.1 images a second\n")


def at_work(stage: str = "train", run: str = RUN, ago: float = 100, log: Path | None = LOG) -> Job:
    return Job(stage, run, log and str(log), time.time() - ago)


# what a log says ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("one\ntwo\n\n", "two"),
        ("bar 10 %\rbar 20 %\r", "bar 20 %"),
        ("é" * 5000 + "\nlast", "last"),
        ("no end of line", "no end of line"),
    ],
)
def test_the_last_line_of_a_log(text, expected):
    LOG.write_text(text)
    assert last_line(LOG) == expected


def test_no_log_yet():
    assert last_line(Path("nowhere.log")) == ""
    (line,) = list(lines(Run(jobs={1: at_work(log=Path("nowhere.log"), ago=125)}).state()))[1:]
    assert line == f"  train {RUN}  running for 2 min"


# when the whole will be done ----------------------------------------------------------------------------


def test_nothing_is_said_before_anything_is_known():
    assert Run(trainings=2).seconds_left() is None
    assert Run(trainings=1, jobs={1: at_work(log=None)}).seconds_left() is None
    assert Run(trainings=0, lasted=[400.0]).seconds_left() is None


@pytest.mark.parametrize(
    ("waiting", "at_once", "expected"),
    [
        (0, 1, 352),  # as its log says
        (2, 1, 352 + 2 * 452),  # two more like it
        (2, 2, (2 * 352 + 2 * 452) / 2),
    ],
)
def test_trainings_that_wait_take_as_long_as_the_others(waiting, at_once, expected):
    jobs = {number: at_work(run=f"{RUN}/seed-{number}") for number in range(at_once)}
    assert Run(trainings=waiting + at_once, jobs=jobs).seconds_left() == pytest.approx(expected, abs=2)


def test_what_a_validation_says_is_not_the_end_of_the_training():
    with LOG.open("a") as log:
        log.write("validation: 24 of 60, 0:00:05 left\n")
    assert Run(trainings=1, jobs={1: at_work()}).seconds_left() == 352
    assert at_work().doing == "validation: 24 of 60, 0:00:05 left"


# what is shown ------------------------------------------------------------------------------------------


def record(event: LogEvent | None, text: str = "", **content) -> LogRecord:
    made = LogRecord("snakemake", INFO, "", 0, text, (), None)
    vars(made).update(content | ({"event": event} if event else {}))
    return made


@pytest.fixture
def shown(monkeypatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    return stream


@pytest.fixture
def handler(shown):
    made = LogHandler(SimpleNamespace(dryrun=False, stdout=False, nocolor=False), None)
    yield made
    made.close()


def begin(handler: LogHandler) -> None:
    handler.emit(record(LogEvent.RUN_INFO, stats={"train": 2, "report": 1, "total": 3}))
    handler.emit(
        record(LogEvent.JOB_INFO, jobid=7, rule_name="train", wildcards={"run": RUN}, log=[str(LOG)])
    )


def test_without_a_terminal_there_is_a_line_for_each_event(handler, shown):
    begin(handler)
    handler.emit(record(LogEvent.JOB_STARTED, "Execute 1 jobs..."))
    handler.emit(record(None, "Select jobs to execute..."))
    handler.emit(record(LogEvent.JOB_FINISHED, job_id=7))
    handler.emit(record(LogEvent.PROGRESS, done=1, total=3))
    handler.emit(record(None, "Nothing to be done."))
    said = [line.split(" ", 1)[-1] if line[0].isdigit() else line for line in shown.getvalue().splitlines()]
    assert said == [
        "jobs to do, 2 of them trainings",
        f"train {RUN} begins; its progress is in {LOG}",
        f"train {RUN} done in 0:00:00",
        "Nothing to be done.",
    ]


def test_an_evaluation_says_its_scores(handler, shown):
    log = LOG.with_name("evaluate.log")
    place = Path("results/tiny") / RUN / "evaluate/metrics.json"
    place.parent.mkdir(parents=True)
    scores = {"AP50": 0.9634, "AP75": 0.65, "mAP": 0.6492}
    place.write_text(
        json.dumps(scores | {"dataset": "tiny", "split": "val", "images": 1, "objects": 1, "classes": {}})
    )
    handler.emit(
        record(LogEvent.JOB_INFO, jobid=1, rule_name="evaluate", wildcards={"run": RUN}, log=[str(log)])
    )
    handler.emit(record(LogEvent.JOB_FINISHED, job_id=1))
    assert shown.getvalue().endswith("done in 0:00:00: mAP 64.92, AP50 96.34, AP75 65.00\n")


def test_an_evaluation_without_scores_says_only_its_end(handler, shown):
    log = LOG.with_name("evaluate.log")
    handler.emit(
        record(LogEvent.JOB_INFO, jobid=1, rule_name="evaluate", wildcards={"run": RUN}, log=[str(log)])
    )
    handler.emit(record(LogEvent.JOB_FINISHED, job_id=1))
    assert shown.getvalue().endswith("done in 0:00:00\n")


def test_a_job_that_fails_names_its_log(handler, shown):
    begin(handler)
    handler.emit(record(LogEvent.JOB_ERROR, "Error in rule train", jobid=7))
    assert f"train {RUN} failed; its log: {LOG}" in shown.getvalue()
    assert "Error in rule train" in shown.getvalue()


def test_a_dry_run_is_left_to_snakemake(shown):
    handler = LogHandler(SimpleNamespace(dryrun=True, stdout=False, nocolor=False), None)
    assert not handler.writes_to_stream
    begin(handler)
    assert shown.getvalue() == ""


def test_on_a_terminal_what_is_at_work_stays_at_the_bottom():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    screen = Screen(Run(), stream)
    screen.begin({"train": 1, "total": 4})
    screen.job_begins(1, "train", {"run": RUN}, [str(LOG)])
    time.sleep(1.5)  # it looks every second
    screen.close()
    text = stream.getvalue()
    assert "0 of 4 jobs done, about 6 min left" in text
    assert f"train {RUN}  epoch 1, step 50 of 414, 0:05:52 left" in text


# from another terminal ----------------------------------------------------------------------------------


def test_status(handler, capsys, monkeypatch):
    begin(handler)
    assert main(["status"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("tiny: 0 of 3 jobs done, about ") and first.endswith(" min left")
    assert second == f"  train {RUN}  {last_line(LOG)}"
    handler.close()
    assert main(["status"]) == 0
    assert capsys.readouterr().out == "no run is active in this folder\n"


def test_a_run_that_was_killed_is_not_at_work(handler):
    begin(handler)
    assert list(read_states()) == ["tiny"]
    place = Path("logs/tiny/status.json")
    state = json.loads(place.read_text())
    place.write_text(json.dumps(state | {"time": state["time"] - SILENT}))
    assert read_states() == {}
    place.write_text("{")
    assert read_states() == {}
