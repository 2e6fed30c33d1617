"""How MLflow's pages show an experiment: as saved views, which the experiment carries as tags.

MLflow 3.17 shows neither scores nor tags in a list of runs until somebody picks the columns, and it keeps the
choice in the browser. A saved view keeps it with the experiment: the view is in the menu "Views" of the list
and has its own address. The format below is the one in which MLflow's page writes such views.
"""

from __future__ import annotations

import json
import os

# For servers that use it. MLflow 3.17 itself uses a switch in the browser, or the address.
_KIND = {"mlflow.experimentKind": "custom_model_development"}
_FIRST_CHART = {"mlflow.experiment.primaryMetric.name": "AP50"}
_NOTE, _VIEW = "mlflow.note.content", "mlflow.sharedViewState."
SCORES, MEANS = "tiltbox-scores", "tiltbox-means"  # keys of the views
_WIDTHS = {
    "attributes.`Run Name`": 210,
    "tags.`detector`": 140,
    "tags.`seed`": 50,
    "metrics.`AP50`": 75,
    "metrics.`mAP`": 75,
    "metrics.`params_M`": 85,
    "metrics.`flops_G`": 75,
    "attributes.`Dataset`": 140,
    "attributes.`Source`": 110,
    "attributes.`Models`": 150,
    "runDateAndNestInfo": 115,
    "duration": 80,
}


def tags(experiment: str) -> dict[str, str]:
    """The tags of an experiment, by its id."""
    note = (
        f"**[Scores of all runs]({_page(experiment, SCORES)})** ·"
        f" [means over seeds]({_page(experiment, MEANS)})"
    )
    return {
        **_KIND,
        **_FIRST_CHART,
        _NOTE: note,
        f"{_VIEW}{SCORES}": _view("Scores"),
        f"{_VIEW}{MEANS}": _view("Means over seeds", group="tag.average.detector"),
    }


def address(experiment: str) -> str:
    """The address of the scores of an experiment, given by its id."""
    place = os.environ.get("MLFLOW_TRACKING_URI", "")
    served = place if place.startswith("http") else "http://127.0.0.1:5000"
    return f"{served.rstrip('/')}/{_page(experiment, SCORES)}"


def _page(experiment: str, view: str) -> str:
    return f"#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={view}"


def _view(name: str, *, group: str | None = None) -> str:
    state = {
        "searchFilter": "",
        "orderByKey": "metrics.`AP50`",
        "orderByAsc": False,
        "selectedColumns": [column for column in _WIDTHS if "`" in column and "Run Name" not in column],
        "columnOrder": list(_WIDTHS),
        "columnWidths": _WIDTHS,
        "groupBy": group,
    }
    return json.dumps({"name": name, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)})
