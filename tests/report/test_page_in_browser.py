"""The page in a real browser, where one is installed."""

from __future__ import annotations

import html
import json
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


MEASURE = """<script>
const boxes = [...document.querySelectorAll("table, svg")].map(each => each.getBoundingClientRect());
const root = document.documentElement;
document.title = JSON.stringify({
  shown: boxes.filter(box => box.width > 100 && box.height > 50).length,
  overflow: root.scrollWidth - root.clientWidth,
  ground: getComputedStyle(document.body).backgroundColor,
  ink: getComputedStyle(document.querySelector("svg text")).fill,
});
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [500, 1400])
def test_tables_and_plots_are_laid_out(make_row, tmp_path, width):
    """All are visible, wide ones scroll in their own frame, and text stands out from the ground."""
    rows = [make_row("yoloms-xs-previous", 0.4), make_row("yoloms-xs-current", 0.5)]
    file = tmp_path / "leaderboard.html"
    file.write_text(page(leaderboard(rows, tmp_path, load_published()), rows) + MEASURE, encoding="utf-8")
    options = [*QUIET, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900"]
    command = [BROWSER, *options, "--dump-dom", file.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = json.loads(html.unescape(re.search("<title>(.*?)</title>", shown)[1]))
    assert (found["shown"], found["overflow"]) == (9, 0)
    assert found["ink"] != found["ground"]
