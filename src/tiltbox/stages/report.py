"""Compare all variants of a dataset in one leaderboard."""

from __future__ import annotations

from pathlib import Path

from tiltbox.files import write_text
from tiltbox.layout import OUTCOMES
from tiltbox.provenance import SUFFIX, Begun
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
    begun, results, out = Begun("report"), Path(results), Path(out)
    rows = collect(results, load_variants().variants)
    begun.reads(*(path for row in rows for path in _files(results / row.name)))
    sure = uncertainty(rows)
    board = leaderboard(rows, out, load_published(published), sure)
    texts = {"md": markdown(board), "csv": sheet(rows, out, sure), "html": page(board, rows, sure)}
    for suffix, text in texts.items():
        write_text(out / f"leaderboard.{suffix}", text)
    outputs = [out / f"leaderboard.{suffix}" for suffix in texts]
    begun.record(out / f"leaderboard.{SUFFIX}", outputs)
    return terminal_table(rows, sure)


def _files(folder: Path) -> list[Path]:
    """What the report reads of a variant, and the records of it, by which the chain goes on."""
    read = ("train.json", "history.csv", "metrics.json", "pr_curves.csv", OUTCOMES, "complexity.json")
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    finished = (path for path in found if not _is_work(path.relative_to(folder)))
    return [path for path in finished if path.name in read or path.name.endswith(SUFFIX)]


def _is_work(path: Path) -> bool:
    """Of a training that is not over, or was set aside."""
    return any(part == "work" or part.startswith("work.") for part in path.parts)
