"""What can be resampled, and what can be resampled together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tiltbox.errors import DataError
from tiltbox.metrics.bootstrap import compare_outcomes
from tiltbox.metrics.outcomes_file import read_outcomes
from tiltbox.report.uncertainty import uncertainty

PAIR = ("yoloms-xs-previous", "yoloms-xs-current")


def test_it_is_what_compare_says(with_outcomes):
    rows = [with_outcomes(PAIR[0], 20, 22), with_outcomes(PAIR[1], 26)]
    sure = uncertainty(rows)
    runs = [[read_outcomes(run.outcomes)[1] for run in row.runs] for row in rows]
    assert sure.comparison(*rows) == compare_outcomes(*runs, images=30)
    assert sure.seen(*rows, "AP50") == sure.comparison(*rows).scores["AP50"].seen


def test_without_outcomes_of_every_run(with_outcomes, make_row):
    bare, row = make_row(PAIR[0]), with_outcomes(PAIR[1], 20, 22)
    partly = replace(row, others=(replace(row.others[0], outcomes=None),))
    for pair in ((bare, row), (row, bare), (with_outcomes(PAIR[0], 20), partly)):
        sure = uncertainty(pair)
        assert sure.comparison(*pair) is None and not sure.seen(*pair, "AP50")
    assert uncertainty([bare]).ranges(bare) == {}


@pytest.mark.parametrize("change", ["labels", "classes"])
def test_rows_on_other_grounds_are_not_compared(with_outcomes, change):
    one, other = with_outcomes(PAIR[0], 20), with_outcomes(PAIR[1], 28)
    if change == "labels":
        other = replace(other, metrics=other.metrics.model_copy(update={"labels": "edited"}))
    else:
        from tiltbox.metrics.outcomes_file import write_outcomes

        images, found = read_outcomes(other.outcomes)
        write_outcomes(other.outcomes, images, {"ship": found["plane"]})
    sure = uncertainty([one, other])
    assert sure.comparison(one, other) is None
    assert sure.ranges(one)["AP50"] and sure.ranges(other)["AP50"]


def test_a_malformed_file(with_outcomes):
    row = with_outcomes(PAIR[0], 20)
    row.outcomes.write_text("no parquet")
    with pytest.raises(DataError, match="contains no outcomes"):
        uncertainty([row])


def test_means_with_absent_classes_as_zero_have_no_interval(with_outcomes):
    row = with_outcomes(PAIR[0], 20)
    other = replace(row, metrics=row.metrics.model_copy(update={"absent_classes": "zero"}))
    assert uncertainty([row]).ranges(row) and uncertainty([other]).ranges(other) == {}
