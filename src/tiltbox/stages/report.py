"""Compare all variants of a dataset in one leaderboard."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from tiltbox.configs import CONFIGS
from tiltbox.errors import DataError
from tiltbox.files.atomic import require_writable, write_text
from tiltbox.layout import DETECTORS, GALLERY, OUTCOMES
from tiltbox.model.variants import load_variants
from tiltbox.provenance import SUFFIX, Begun, read_provenance
from tiltbox.report.collect import Row, collect
from tiltbox.report.leaderboard import leaderboard
from tiltbox.report.leaderboard_csv import leaderboard_csv
from tiltbox.report.leaderboard_tables import terminal_table
from tiltbox.report.markdown import markdown
from tiltbox.report.page import page
from tiltbox.report.series import series
from tiltbox.report.uncertainty import Uncertainty, uncertainty
from tiltbox.settings.published import Published, load_published


def report(results: Path, out: Path | None, *, published: Path = CONFIGS / "published.yaml") -> str:
    """Write ``leaderboard.md``, ``.csv`` and ``.html`` into ``out`` from the results in ``results``.

    Each detector also gets its own page, in the folder ``detectors``. The figures are also written to files
    for DVC (:mod:`tiltbox.report.series`).

    What a variant does not have yet is shown as a dash. The same results give the same bytes.

    Args:
        results: A folder with one folder per variant, as the other stages write it.
        out: The folder to write to, which may be the same. None writes nothing.
        published: The published numbers to compare ours with.

    Returns:
        The table in plain text, variants in the order of ``configs/variants.yaml``, then by name.

    Raises:
        DataError: There are no results, or one of their files is malformed.
        SettingsError: ``published`` is malformed.
        OutputError: ``out`` cannot be written.
    """
    begun, results = Begun("report"), Path(results)
    rows = collect(results, load_variants().variants)
    begun.reads(*(path for row in rows for path in _files(results / row.name)))
    sure = uncertainty(rows)
    if out is not None:
        _write(rows, sure, Path(out), load_published(published), begun)
    return terminal_table(rows, sure)


def _write(rows: list[Row], sure: Uncertainty, out: Path, published: Published, begun: Begun) -> None:
    board = leaderboard(rows, out, published, sure)
    texts = {
        Path("leaderboard.md"): markdown(board),
        Path("leaderboard.csv"): leaderboard_csv(rows, out, sure),
        Path("leaderboard.html"): page(board, rows, sure),
        **{DETECTORS / f"{row.name}.html": _detector(row, out, published, sure) for row in rows},
        **series(rows),
    }
    for name, text in texts.items():
        require_writable((out / name).parent)
        write_text(out / name, text)
    record = out / f"leaderboard.{SUFFIX}"
    _remove_others(record, texts)
    begun.record(record, [out / name for name in texts])


def _detector(row: Row, out: Path, published: Published, sure: Uncertainty) -> str:
    """The page of a single detector."""
    board = leaderboard([row], out / DETECTORS, published, sure)
    return page(replace(board, title=f"{row.name} on {row.dataset}"), [row], sure)


def _remove_others(record: Path, written: Collection[Path]) -> None:
    """Remove what an earlier report wrote about detectors that no longer exist."""
    try:
        earlier = read_provenance(record).outputs
    except DataError:  # it does not exist or is damaged
        return
    for name in set(map(Path, earlier)) - set(written):
        (record.parent / name).unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    """What the report reads of a variant, including its records, which continue the chain."""
    read = {"train.json", "history.csv", "metrics.json", "pr_curves.csv", "complexity.json"}
    read |= {OUTCOMES, GALLERY}
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    finished = (path for path in found if not _is_work(path.relative_to(folder)))
    return [path for path in finished if path.name in read or path.name.endswith(SUFFIX)]


def _is_work(path: Path) -> bool:
    """Whether a path belongs to a training that is unfinished or was set aside."""
    return any(part == "work" or part.startswith("work.") for part in path.parts)
