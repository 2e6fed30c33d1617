"""The page in a real browser, where one is installed."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tiltbox.report.leaderboard import leaderboard
from tiltbox.report.page import page
from tiltbox.settings.published import load_published

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_tables_and_plots_are_shown(make_row, tmp_path):
    rows = [make_row("yoloms-xs-previous", 0.4), make_row("yoloms-xs-current", 0.5)]
    file = tmp_path / "leaderboard.html"
    file.write_text(page(leaderboard(rows, tmp_path, load_published()), rows), encoding="utf-8")
    command = [BROWSER, *QUIET, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", file.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert len(re.findall(r"<table", shown)) >= 4 and len(re.findall(r"<svg", shown)) == 2
    assert len(re.findall(r"yoloms-xs-current", shown)) >= 3
