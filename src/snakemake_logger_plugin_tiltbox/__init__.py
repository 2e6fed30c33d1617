"""What Snakemake shows of a tiltbox run: running jobs with their progress, and a line for each finished job.

Snakemake finds it by the name of this package; ``profiles/default`` asks for it. Its own log stays complete
in ``.snakemake/log``, and a dry run looks as Snakemake shows it.
"""

from __future__ import annotations

import re
import sys
from logging import LogRecord

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from tiltbox.watching import Run, Screen

# Messages that help nobody. Every evaluation writes a leaderboard, so it may exist before its own rule has
# run; results that were pulled or copied have no Snakemake metadata.
NOT_SHOWN = re.compile(
    r"Building DAG|Select jobs|Assuming unrestricted|Using (workflow|profile|shell)|Config file"
    r"|Provided (cores|resources)|Rules claiming more|Conda environments"
    r"|.*of rule report were not present when the DAG was created"
    r"|Missing metadata for file|Adding \S+ \(|Touching output file"
)
SILENT = (
    *(LogEvent.WORKFLOW_STARTED, LogEvent.RESOURCES_INFO, LogEvent.SHELLCMD, LogEvent.RULEGRAPH),
    *(LogEvent.JOB_STARTED, LogEvent.DEBUG_DAG),
)


class LogHandler(LogHandlerBase):
    """Keeps a :class:`tiltbox.watching.Run` up to date from Snakemake's events."""

    writes_to_file = has_filter = has_formatter = needs_rulegraph = False

    @property
    def writes_to_stream(self) -> bool:
        return not self.common_settings.dryrun

    def __post_init__(self) -> None:
        stream = sys.stdout if self.common_settings.stdout else sys.stderr
        self._run = Run()
        self._screen = Screen(self._run, stream, plain=self.common_settings.nocolor)

    def emit(self, record: LogRecord) -> None:
        if not self.common_settings.dryrun:
            try:
                self._follow(record, getattr(record, "event", None))
            except Exception:
                self.handleError(record)

    def close(self) -> None:
        self._screen.close()
        super().close()

    def _follow(self, record: LogRecord, event: LogEvent | None) -> None:
        facts = vars(record)  # Snakemake adds those of the event
        match event:
            case LogEvent.RUN_INFO:
                self._screen.begin(facts["stats"])
            case LogEvent.JOB_INFO:
                self._screen.job_begins(facts["jobid"], facts["rule_name"], facts["wildcards"], facts["log"])
            case LogEvent.JOB_FINISHED:
                self._screen.job_ends(facts["job_id"])
            case LogEvent.JOB_ERROR:
                self._screen.job_fails(facts["jobid"])
                self._screen.say(self.format(record))
            case LogEvent.PROGRESS:
                self._screen.count(facts["done"], facts["total"])
            case None if not NOT_SHOWN.match(record.getMessage()):
                self._screen.say(self.format(record))
            case _ if event is not None and event not in SILENT:
                self._screen.say(self.format(record))
