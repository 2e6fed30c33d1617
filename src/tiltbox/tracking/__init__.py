"""MLflow: what was trained, how, on what, and how well it detects, to view and compare in a browser.

One experiment for each dataset, one run for each training, to which evaluation adds its scores. MLflow only
shows; it decides nothing. A training only writes files. Everything that MLflow gets comes from them: from a
thread beside the training (:mod:`.following`), at its end, or later (:mod:`.catching_up`). No server can stop
or slow down a training.
"""

from tiltbox.tracking.catching_up import catch_up, catch_up_all
from tiltbox.tracking.commit import git_commit
from tiltbox.tracking.following import followed
from tiltbox.tracking.journal import has_journal
from tiltbox.tracking.runs import (
    SCORES,
    begin_training,
    end_training,
    log_evaluation,
    log_history,
    log_training,
)
from tiltbox.tracking.store import client, prepare, require_experiment, require_target, within
from tiltbox.tracking.views import address

__all__ = [
    "SCORES",
    "address",
    "begin_training",
    "catch_up",
    "catch_up_all",
    "client",
    "end_training",
    "followed",
    "git_commit",
    "has_journal",
    "log_evaluation",
    "log_history",
    "log_training",
    "prepare",
    "require_experiment",
    "require_target",
    "within",
]
