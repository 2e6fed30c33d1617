"""Compare all variants of a dataset in one leaderboard."""

from __future__ import annotations

from pathlib import Path

from tiltbox.files import write_text
from tiltbox.report.collect import collect
from tiltbox.report.leaderboard import leaderboard
from tiltbox.report.markdown import markdown
from tiltbox.report.page import page
from tiltbox.report.sheet import sheet
from tiltbox.report.tables import terminal_table
from tiltbox.report.uncertainty import uncertainty
from tiltbox.settings.base import CONFIGS
from tiltbox.settings.published import load_published
from tiltbox.settings.variants import load_variants


def report(results: Path, out: Path, *, published: Path = CONFIGS / "published.yaml") -> str:
    """Write ``leaderboard.md``, ``.csv`` and ``.html`` into ``out`` from what lies below ``results``.

    What a variant lacks so far is shown as a dash. The same results give the same bytes.

    Args:
        results: A folder with one folder per variant, as the other stages leave it.
        out: The folder to write to; it may be the same.
        published: The published numbers to set beside ours.

    Returns:
        The table in plain text, variants in the order of ``configs/variants.yaml``, then by name.

    Raises:
        DataError: There are no results, or a file of theirs is malformed.
        SettingsError: ``published`` is malformed.
        OutputError: ``out`` cannot be written.
    """
    out = Path(out)
    rows = collect(results, load_variants().variants)
    sure = uncertainty(rows)
    board = leaderboard(rows, out, load_published(published), sure)
    texts = {"md": markdown(board), "csv": sheet(rows, out, sure), "html": page(board, rows, sure)}
    for suffix, text in texts.items():
        write_text(out / f"leaderboard.{suffix}", text)
    return terminal_table(rows, sure)
