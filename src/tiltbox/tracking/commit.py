"""The commit that a training was started from."""

from __future__ import annotations

import subprocess


def git_commit() -> str:
    """The current folder's commit, short, with ``-dirty`` if files were changed since; or ``unknown``."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # Git is not installed
        return "unknown"
    return asked.stdout.strip() or "unknown"
