"""The real Snakemake on a copy of the workflow."""

from __future__ import annotations

import base64
import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import yaml

from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.model.checkpoint import save_checkpoint

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
ALL = yaml.safe_load((ROOT / "configs/config.yaml").read_text())["variants"]
TWO = ["yoloms-xs-previous", "yoloms-xs-current"]
PER_VARIANT = ("train", "predict", "merge", "evaluate", "complexity")
ONCE = ("download", "split_train", "split_test", "tracking", "report", "all_variants")
REAL = ["dataset=tiny", f"variants={json.dumps(TWO)}", "gpus=0"]


def call(command: str, *arguments: str, at: Path, **variables: str) -> subprocess.CompletedProcess:
    """Run it as on a machine without GPUs, and with these variables; programs in ``at``/bin come first."""
    others = ("MLFLOW_", "SLURM_", "SNAKEMAKE_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(others)}
    environment["PATH"] = os.pathsep.join([str(at / "bin"), str(BIN), environment["PATH"]])
    environment |= {"CUDA_VISIBLE_DEVICES": ""} | variables
    return subprocess.run(
        [BIN / command, *arguments], cwd=at, env=environment, capture_output=True, text=True, check=False
    )


def dry_run(at: Path, *settings: str, targets: tuple[str, ...] = (), **variables: str) -> dict[str, int]:
    """How many jobs of each rule would run; empty if there is nothing to do."""
    done = call("snakemake", *targets, "--dry-run", "--config", *settings, at=at, **variables)
    assert done.returncode == 0, done.stderr
    if "Nothing to be done" in done.stdout + done.stderr:
        return {}
    (table,) = set(re.findall(r"Job stats:\n.*?\n\n", done.stdout, flags=re.DOTALL))
    jobs = dict(re.findall(r"^(\w[\w-]*) +(\d+)$", table, flags=re.MULTILINE))
    return {rule: int(count) for rule, count in jobs.items() if rule != "total"}


def program(path: Path, script: str) -> None:
    """A program that stands in for the real one."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/bash\n{textwrap.dedent(script)}")
    path.chmod(0o755)


# A tiltbox that does no work, leaves records, and notes in `trainings` when a training begins and ends.
QUICK = f'exec {sys.executable} {Path(__file__).with_name("stand_in.py")} "$@"\n'


def jobs_of(at: Path, *settings: str) -> set[tuple[str, str]]:
    """Rule and output folder or file of all jobs that would run."""
    done = call("snakemake", "--dry-run", "--config", *settings, at=at)
    assert done.returncode == 0, done.stderr
    found = re.findall(
        r"^rule ([\w-]+):\n(?:    .*\n)*?    output: ([^\s,]+)", done.stdout, flags=re.MULTILINE
    )
    return set(found)


@pytest.fixture(scope="module")
def fresh(copy_project, tmp_path_factory) -> Path:
    """A project in which nothing has run yet; only for dry runs."""
    return copy_project(tmp_path_factory.mktemp("fresh"))


@pytest.fixture(scope="module")
def finished(copy_project, tmp_path_factory) -> Path:
    """A project in which two variants ran to the end."""
    folder = copy_project(tmp_path_factory.mktemp("finished"))
    done = call("snakemake", "--cores", "2", "all_variants", "--config", *REAL, at=folder)
    assert done.returncode == 0, done.stderr
    return folder


# before anything runs -----------------------------------------------------------------------------------


def test_every_variant_goes_through_every_stage(fresh):
    assert dry_run(fresh, "gpus=0") == dict.fromkeys(PER_VARIANT, len(ALL)) | dict.fromkeys(ONCE, 1)


def test_all_variants_is_the_default_target(fresh):
    expected = dict.fromkeys(PER_VARIANT, len(ALL)) | dict.fromkeys(ONCE, 1)
    assert dry_run(fresh, "gpus=0", targets=("all_variants",)) == expected


@pytest.mark.parametrize("name", [ALL[0], ALL[-1]])
def test_a_variant_is_a_target(fresh, name):
    jobs = dry_run(fresh, "gpus=0", targets=(name,))
    once = ("download", "split_train", "split_test", "tracking", name)
    assert jobs == dict.fromkeys((*PER_VARIANT, *once), 1)


def test_seeds_are_trainings_of_their_own(fresh):
    """Jobs that do not depend on the seed run once."""
    jobs = dry_run(fresh, "gpus=0", "seeds=0,3")
    each = dict.fromkeys(PER_VARIANT, 2 * len(ALL)) | {"complexity": len(ALL)}
    assert jobs == each | dict.fromkeys(ONCE, 1)
    places = jobs_of(fresh, *REAL, "seeds=[3]")
    assert ("train", "results/tiny/yoloms-xs-current/seed-3/train/checkpoint.pth") in places
    assert ("complexity", "results/tiny/yoloms-xs-current/complexity/complexity.json") in places
    one = dry_run(fresh, "gpus=0", "seeds=0,3", targets=(ALL[0],))
    assert (one["train"], one["complexity"], one[ALL[0]]) == (2, 1, 1)


def test_without_labels_it_ends_in_the_file_to_submit(fresh):
    dataset = yaml.safe_load((fresh / "configs/datasets/tiny.yaml").read_text())
    dataset |= {"name": "bare", "test_split": "test", "test_labelled": False}
    (fresh / "unlabelled set.yaml").write_text(yaml.safe_dump(dataset))  # a space in the name does not matter
    jobs = jobs_of(fresh, "dataset=unlabelled set.yaml", *REAL[1:])
    assert not any(rule == "evaluate" for rule, _ in jobs)
    assert {rule for rule, _ in jobs} >= {"train", "predict", "merge", "complexity", "report"}
    assert ("merge", "results/bare/yoloms-xs-current/merge/Task1_plane.txt") in jobs


def test_weights_to_start_from_are_fetched_first(fresh):
    """If the schedule starts from weights: once for each variant, before it is trained."""
    assert "weights" not in dry_run(fresh, "dataset=tiny", "gpus=0")
    assert dry_run(fresh, "dataset=tiny", "schedule=dota-cpu", "gpus=0")["weights"] == len(ALL)


def test_weights_of_a_variant_can_be_fetched_alone(copy_project, tmp_path, serve):
    folder = copy_project(tmp_path)
    table = folder / "configs/variants.yaml"
    published = tmp_path / "web" / yaml.safe_load(table.read_text())["variants"][TWO[1]]["pretrained"]
    published.parent.mkdir(parents=True)
    save_checkpoint(published, {"w": torch.ones(1)}, {})
    address = f"weights: {serve(tmp_path / 'web')}"
    table.write_text(re.sub("^weights: .*$", address, table.read_text(), flags=re.MULTILINE))
    mark = f"results/tiny/{TWO[1]}/.weights"
    arguments = ("--cores", "1", mark, "--config", "dataset=tiny", "schedule=dota-cpu")
    done = call("snakemake", *arguments, at=folder, TORCH_HOME=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert (folder / mark).exists()
    (copy,) = (tmp_path / "cache").rglob("*.pth")
    assert copy.read_bytes() == published.read_bytes()


def test_weights_that_cannot_be_fetched_end_it_before_a_training(copy_project, tmp_path, closed):
    folder = copy_project(tmp_path)
    table = folder / "configs/variants.yaml"
    table.write_text(re.sub("^weights: .*$", f"weights: {closed}", table.read_text(), flags=re.MULTILINE))
    real = f'[ "$1" = weights ] && exec {BIN / "tiltbox"} "$@"\n'
    program(folder / "bin/tiltbox", real + QUICK)
    done = call(
        *("snakemake", "--cores", "2", *(f"results/tiny/{name}/train/checkpoint.pth" for name in TWO)),
        *("--config", *REAL, "schedule=dota-cpu"),
        at=folder,
        TORCH_HOME=str(tmp_path / "cache"),
        NO_PROXY="*",
    )
    assert done.returncode == 1
    assert not (folder / "trainings").exists()
    for name in TWO:
        (line,) = (folder / f"logs/tiny/{name}/weights.log").read_text().splitlines()
        assert re.match(r"tiltbox weights: http://\S+\.pth: cannot be reached \(Connection refused\); ", line)
        assert line.endswith("(for Snakemake: --config schedule=small-gpu)")
        assert line in done.stdout + done.stderr


def test_training_and_test_on_the_same_split(fresh):
    """This shows whether a detector can memorise a set."""
    dataset = yaml.safe_load((fresh / "configs/datasets/tiny.yaml").read_text())
    (fresh / "same.yaml").write_text(yaml.safe_dump(dataset | {"name": "same", "test_split": "train"}))
    jobs = dry_run(fresh, "dataset=same.yaml", *REAL[1:])
    assert (jobs["split_train"], jobs["predict"], "split_test" in jobs) == (1, 2, False)


def test_without_tracking(fresh):
    commands = call("snakemake", "-n", "--printshellcmds", "--config", *REAL, "track=false", at=fresh).stdout
    assert "tiltbox train" in commands
    assert "--track" not in commands and "tiltbox tracking" not in commands
    assert "--track tiny/yoloms" in call("snakemake", "-np", "--config", *REAL, at=fresh).stdout


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("datset=mini", "--config: datset: unknown key; did you mean 'dataset'?"),
        ("dataset=mnii", "configs/datasets: unknown dataset 'mnii'; did you mean 'mini'?"),
        (
            "variants=['yoloms-xs-curent']",
            "--config: variants: unknown variant 'yoloms-xs-curent'; did you mean 'yoloms-xs-current'?",
        ),
        ("gpus=2", "gpus: asks for 2, but this machine has 0; choose gpus=0"),
    ],
)
def test_wrong_settings_die_before_there_is_a_dag(fresh, setting, message):
    done = call("snakemake", "--dry-run", "--config", setting, at=fresh)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"snakemake: {message}"
    assert "Traceback" not in done.stderr and "Job stats" not in done.stdout


def test_a_contradiction_in_a_row_names_the_variant(fresh, copy_project, tmp_path):
    folder = copy_project(tmp_path)
    change_row(folder, "yoloms-s-current", query_size=None)
    done = call("snakemake", "--dry-run", at=folder)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "configs/variants.yaml: variants.yoloms-s-current: attention and query_size go together" in last


def test_a_workstation_with_one_gpu(fresh):
    """It would silently train on the CPU."""
    done = call("snakemake", "--dry-run", "--config", "dataset=dota", at=fresh, CUDA_VISIBLE_DEVICES="0")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "snakemake: gpus: schedule dota-2gpu wants 2 GPUs, but this machine has 1;"
        " choose another schedule (such as dota-1gpu), gpus=1 or gpus=0"
    )


def test_remarks(fresh):
    done = call("snakemake", "--dry-run", "--config", "dataset=mini", "schedule=dota-1gpu", at=fresh)
    remarks = [line for line in done.stderr.splitlines() if line.startswith("snakemake: ")]
    assert len(remarks) == 2 and "CPU" in remarks[0]
    assert "patch.size" in remarks[1] and "image_size" in remarks[1]


def test_a_dataset_without_a_schedule(fresh, tmp_path):
    """The training chooses one when there are patches; nothing is downloaded before."""
    (tmp_path / "pictures").mkdir()
    dataset = tmp_path / "mine.yaml"
    dataset.write_text("{name: mine, source: {folder: pictures}}")
    done = call("snakemake", "--dry-run", "--config", f"dataset={dataset}", at=fresh)
    assert done.returncode == 0, done.stderr
    remarks = [line for line in done.stderr.splitlines() if line.startswith("snakemake: ")]
    assert len(remarks) == 2 and "CPU, with schedule auto" in remarks[0]
    assert "chosen when there are patches" in remarks[1] and "logs/mine/VARIANT/train.log" in remarks[1]
    assert "weights" not in done.stdout


def test_no_file_of_an_unknown_variant_can_be_asked_for(fresh):
    done = call("snakemake", "--dry-run", "results/mini/yoloms-m-current/train/checkpoint.pth", at=fresh)
    assert done.returncode == 1
    assert "MissingRuleException" in done.stdout + done.stderr


def test_lint(fresh):
    done = call("snakemake", "--lint", at=fresh)
    assert "your workflow is in a good condition" in done.stdout + done.stderr
    assert done.returncode == 0


def test_formatted(fresh):
    done = call("snakefmt", "--check", "Snakefile", "workflow", at=fresh)
    assert done.returncode == 0, done.stderr


def commands_in(document: str) -> set[str]:
    """Every command line, in a block or in a sentence, with the reader's own names replaced by ours."""
    text = (ROOT / document).read_text()
    fence = re.MULTILINE | re.DOTALL
    blocks, prose = re.findall(r"^```\n(.*?)^```", text, fence), re.sub(r"^```.*?^```", "", text, flags=fence)
    lines = re.findall(r"^snakemake [^#\n]+", "\n".join(blocks), re.MULTILINE)
    lines += [" ".join(line.split()) for line in re.findall(r"`(snakemake [^`]+)`", prose)]
    lines = [re.sub(r"path/to/\w+\.yaml", "configs/datasets/tiny.yaml", line) for line in lines]
    return {line.replace("yoloms-s-mine", ALL[0]) for line in lines}


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_commands_in_documents(fresh, document):
    """Each can be started as it is written."""
    commands = commands_in(document)
    assert len(commands) > 1
    for line in commands:
        done = call(*shlex.split(line), "--dry-run", "--quiet", at=fresh, CUDA_VISIBLE_DEVICES="0,1")
        assert done.returncode == 0, (line, done.stderr)


def test_make_run_shows_what_it_ran():
    text = (ROOT / "Makefile").read_text()
    assert re.search(r"snakemake --cores \$\(CORES\) all_variants --config dataset=mini\n", text)
    assert "report results/mini\n" in text


def test_cores_need_not_be_given():
    """A dry run does not show this: it assumes one core if none is given."""
    profile = yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())
    assert profile["cores"] == "all"


@pytest.mark.parametrize(
    ("targets", "threads"), [([], 12 // len(ALL)), ([ALL[0]], 12), (ALL[:2], 6), (["report"], 12 // len(ALL))]
)
def test_variants_that_were_asked_for_share_the_cores(fresh, targets, threads):
    settings = ["--config", "dataset=tiny"]
    done = call("snakemake", "-n", "--cores", "12", *targets, *settings, at=fresh)
    found = re.findall(r"^rule train:\n(?:    .*\n)*?    threads: (\d+)", done.stdout, flags=re.MULTILINE)
    assert set(found) == {str(threads)}, done.stderr


def test_every_rule_has_log_benchmark_and_resources():
    """Except for targets, which run nothing."""
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        for rule in re.split(r"^ *rule\b", path.read_text(), flags=re.MULTILINE)[1:]:
            if "shell:" in rule:
                for part in ("log:", "benchmark:", "resources:", "mem_mb=", "runtime="):
                    assert part in rule, (path.name, part, rule)


# on GPUs and clusters, with stand-ins -------------------------------------------------------------------


@pytest.fixture
def quick(copy_project, tmp_path) -> Path:
    """A project whose stages take no time and do nothing."""
    program(tmp_path / "bin/tiltbox", QUICK)
    return copy_project(tmp_path)


@pytest.mark.parametrize(("limit", "most"), [([], 2), (["--resources", "gpu=1"], 1)])
def test_no_more_trainings_than_gpus(quick, limit, most):
    targets = [f"results/tiny/{name}/train/checkpoint.pth" for name in ALL]
    settings = ["--config", "dataset=tiny", "--"]
    done = call(
        "snakemake", "--cores", "16", *limit, *settings, *targets, at=quick, CUDA_VISIBLE_DEVICES="0,1"
    )
    assert done.returncode == 0, done.stderr
    steps = [1 if line == "begin" else -1 for line in (quick / "trainings").read_text().split()]
    at_once = [sum(steps[: end + 1]) for end in range(len(steps))]
    assert (len(steps), max(at_once), at_once[-1]) == (2 * len(ALL), most, 0)
    sizes = re.findall(r"^train yoloms-(\w+)-", (quick / "calls").read_text(), flags=re.MULTILINE)
    assert sizes == ["xs", "xs", "s", "s", "l", "l"], "the first scores are there early"


SLURM = {
    "sbatch": """
        echo "$*" >> submitted
        for each; do case $each in --wrap=*) command=${each#--wrap=};; esac; done
        SLURM_JOB_ID=17 bash -c "$command" >> jobs.log 2>&1
        echo 17
    """,
    "srun": 'while [[ $1 == -* ]]; do shift; done; "$@"',
    "sacct": 'echo "17|COMPLETED"',
    "squeue": 'echo "17|COMPLETED"',
    "sacctmgr": "echo account",
    "sinfo": "echo partition",
    "scontrol": "",
    "scancel": "",
}


@pytest.mark.parametrize("profile", ["--workflow-profile", "--profile"])
def test_slurm(quick, profile):
    """From a login node without GPUs; neither cores nor GPUs are given."""
    for name, script in SLURM.items():
        program(quick / "bin" / name, script)
    target = "results/dota/yoloms-xs-current/train/checkpoint.pth"
    options = ["--default-resources", "slurm_account=account", "slurm_partition=partition", "--retries", "0"]
    options += ["--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1"]
    options += ["--latency-wait", "3", "--config", "dataset=dota", "--", target]
    done = call("snakemake", profile, "profiles/slurm", *options, at=quick)
    log = quick / "jobs.log"
    assert done.returncode == 0, done.stderr + (log.read_text() if log.exists() else "")
    assert (quick / target).exists()
    submitted = {
        re.search(r"--comment rule_(\w+?)(_wildcards_\S*)? ", line).group(1): line
        for line in (quick / "submitted").read_text().splitlines()
    }
    assert set(submitted) == {"split_train", "train"}  # the rest runs on the login node
    train = submitted["train"].partition("--wrap")[0]
    assert "--gpus 2" in train or "--gpus=2" in train, train
    assert "--mem 30000 " in train and "-t 1440 " in train
    if profile == "--workflow-profile":
        assert "--cpus-per-task=10" in train
        assert "--mem 10000 " in submitted["split_train"]


# after a real run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TWO)
def test_results_of_a_variant(finished, name):
    results = finished / "results/tiny" / name
    assert (results / "train/checkpoint.pth").stat().st_size > 2**20
    with (results / "train/history.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2"]
    assert (results / "predict/detections.parquet").exists()
    names = {path.name for path in (results / "merge").iterdir()}
    assert names - {".tiltbox"} == {"Task1.zip", *(f"Task1_{each}.txt" for each in DOTA_V1_CLASSES)}
    metrics = json.loads((results / "evaluate/metrics.json").read_text())
    assert (metrics["dataset"], metrics["split"], metrics["images"]) == ("tiny", "val", 1)
    assert set(metrics["classes"]) == set(DOTA_V1_CLASSES)
    assert (results / "evaluate/dota.txt").read_text().startswith("This is your evaluation result for task 1")
    counts = json.loads((results / "complexity/complexity.json").read_text())
    assert (counts["variant"], counts["input"]) == (name, [1, 3, 1024, 1024])


def test_leaderboard(finished):
    for suffix in ("md", "csv", "html"):
        text = (finished / f"results/tiny/leaderboard.{suffix}").read_text()
        assert all(name in text for name in TWO)


def results_shown(at: Path, *settings: str) -> dict[str, dict]:
    """What Snakemake's report contains, by path."""
    done = call("snakemake", "--report", "report.html", "--config", *settings, at=at)
    assert done.returncode == 0, done.stderr
    text = (at / "report.html").read_text()
    return json.loads(re.search(r"^    var results = (.*);$", text, re.MULTILINE)[1])


def test_report_of_snakemake(finished, tmp_path):
    """From finished results alone, as in a clone that pulled them; the series can be switched."""
    shutil.copytree(
        finished,
        tmp_path / "clone",
        symlinks=True,
        ignore=shutil.ignore_patterns("data", ".snakemake", "*.pth"),
    )
    before = {path for path in (tmp_path / "clone").rglob("*") if ".snakemake" not in path.parts}
    shown = results_shown(tmp_path / "clone", *REAL)
    pages = {name: shown[f"results/tiny/detectors/{name}.html"] for name in TWO}
    assert len(shown) == 4 and {"results/tiny/leaderboard.html", "results/tiny/leaderboard.csv"} <= set(shown)
    labels = [page["labels"] for page in pages.values()]
    assert labels == [
        {"size": "XS", "series": f"YOLO-MS {each}", "seeds": "0"} for each in ("previous", "current")
    ]
    captions = [" ".join(page["caption"].split()) for page in pages.values()]
    assert all("hits, misses and false alarms" in caption for caption in captions)
    after = {path for path in (tmp_path / "clone").rglob("*") if ".snakemake" not in path.parts}
    assert {path.name for path in after - before} == {"report.html"}
    page = base64.b64decode(pages[TWO[0]]["data_uri"].partition(",")[2]).decode()
    assert f"<h1>{TWO[0]} on tiny</h1>" in page and "Predictions beside labels" in page


def test_report_of_snakemake_with_less_than_all(finished, tmp_path):
    """The switch appears only if every size has both series, and detectors only if they have pages."""
    folder = shutil.copytree(finished, tmp_path / "project", symlinks=True)
    one = (REAL[0], f"variants={TWO[0]}", REAL[2])
    labels = results_shown(folder, *one)[f"results/tiny/detectors/{TWO[0]}.html"]["labels"]
    assert labels == {"detector": TWO[0], "seeds": "0"}
    (folder / f"results/tiny/detectors/{TWO[0]}.html").unlink()
    assert set(results_shown(folder, *REAL)) == {
        f"results/tiny/leaderboard.{each}" for each in ("csv", "html")
    }


def test_logs_and_benchmarks(finished):
    for name in TWO:
        for stage in PER_VARIANT:
            assert (finished / f"logs/tiny/{name}/{stage}.log").exists()
            assert (finished / f"logs/benchmarks/tiny/{name}/{stage}.tsv").exists()


def test_one_run_per_variant_in_mlflow(finished, monkeypatch):
    from tiltbox import tracking

    monkeypatch.chdir(finished)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    runs = tracking.client().search_runs([tracking.prepare("tiny")])
    assert sorted(run.info.run_name for run in runs) == sorted(TWO)
    for run in runs:
        metrics = json.loads(
            (finished / f"results/tiny/{run.info.run_name}/evaluate/metrics.json").read_text()
        )
        assert run.data.metrics["AP50"] == metrics["AP50"]
        assert {"train/loss", "params_M", "flops_G"} <= set(run.data.metrics)
        folder = finished / "mlartifacts" / run.info.artifact_uri.partition(":/")[2]
        kept = {path.name for path in folder.iterdir()}
        assert {"config.py", "history.csv", "train.json", "metrics.json", "dota.txt"} <= kept
        assert any(name.endswith(".png") for name in kept)


def test_a_second_run_has_nothing_to_do(finished):
    done = call("snakemake", "--cores", "2", "--config", *REAL, at=finished)
    assert done.returncode == 0, done.stderr
    assert "Nothing to be done" in done.stdout + done.stderr


def test_another_seed_does_not_train_the_first_again(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "project", symlinks=True)
    settings = ["dataset=tiny", f"variants={TWO[0]}", "gpus=0", "seeds=0,1"]
    expected = dict.fromkeys(PER_VARIANT[:-1], 1) | {"report": 1, "all_variants": 1}
    assert dry_run(folder, *settings) == expected
    done = call("snakemake", "--cores", "2", "--config", *settings, at=folder)
    assert done.returncode == 0, done.stderr
    assert dry_run(folder, *settings) == {}
    results = folder / "results/tiny" / TWO[0]
    facts = [json.loads((place / "train/train.json").read_text()) for place in (results, results / "seed-1")]
    assert [each["seed"] for each in facts] == [0, 1] and facts[0]["config_hash"] != facts[1]["config_hash"]
    assert (results / "train/checkpoint.pth").read_bytes() != (
        results / "seed-1/train/checkpoint.pth"
    ).read_bytes()
    with (folder / "results/tiny/leaderboard.csv").open() as file:
        rows = {row["variant"]: row["seeds"] for row in csv.DictReader(file)}
    assert rows == {TWO[0]: "0+1", TWO[1]: "0"}
    assert (folder / f"logs/tiny/{TWO[0]}/seed-1/train.log").exists()


def test_a_changed_row_reruns_that_variant_alone(finished, kept_configs):
    change_row(finished, "yoloms-xs-current", head_groups=2)
    folder = Path("results/tiny/yoloms-xs-current")
    outputs = {
        ("train", f"{folder}/train/checkpoint.pth"),
        ("predict", f"{folder}/predict/detections.parquet"),
        ("merge", f"{folder}/merge/Task1_plane.txt"),
        ("evaluate", f"{folder}/evaluate/metrics.json"),
        ("complexity", f"{folder}/complexity/complexity.json"),
        ("report", "results/tiny/leaderboard.md"),
    }
    assert jobs_of(finished, *REAL) == outputs


def test_a_comment_in_the_table_reruns_nothing(finished, kept_configs):
    path = finished / "configs/variants.yaml"
    path.write_text("# Another comment.\n" + path.read_text())
    assert dry_run(finished, *REAL) == {}


@pytest.mark.parametrize(
    "settings",
    [
        ["track=false"],
        ["dataset=configs/datasets/tiny.yaml"],
        ["schedule=smoke"],
        ["schedule=configs/schedules/smoke.yaml"],
        ["gpus=auto"],
        ["gpus=1"],
        [f"variants={TWO[0]}"],
    ],
)
def test_settings_that_do_not_change_results(finished, settings):
    again = {setting.partition("=")[0]: setting for setting in [*REAL, *settings]}.values()
    assert dry_run(finished, *again, CUDA_VISIBLE_DEVICES="0,1").keys() <= {"report", "all_variants"}


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("schedules/smoke.yaml", "workers: 0", "workers: 2"),
        ("variants.yaml", "dota/epoch_36.pth", "dota/epoch_12.pth"),
        ("variants.yaml", "coco.pth", "coco-2.pth"),  # the schedule starts from random weights
        ("schedules/smoke.yaml", "l: 1", "l: 2"),  # none of the size
    ],
)
def test_edits_that_do_not_change_results(finished, kept_configs, file, old, new):
    path = finished / "configs" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert dry_run(finished, *REAL) == {}


def test_lost_logs_do_not_train_other_variants(finished, kept_configs, tmp_path):
    logs = (finished / "logs").rename(tmp_path / "logs")
    try:
        change_row(finished, "yoloms-xs-current", head_groups=2)
        jobs = dry_run(finished, *REAL)
    finally:
        shutil.rmtree(finished / "logs", ignore_errors=True)
        logs.rename(finished / "logs")
    assert jobs["train"] == 1


def test_a_new_database_trains_nothing(finished):
    done = call("snakemake", "-n", "--forcerun", "tracking", "--config", *REAL, "--", "report", at=finished)
    assert "rule tracking:" in done.stdout and "rule train:" not in done.stdout


def test_another_schedule_trains_again(finished, kept_configs):
    path = finished / "configs/schedules/smoke.yaml"
    path.write_text(path.read_text().replace("max_steps: 2", "max_steps: 3"))
    assert dry_run(finished, *REAL) == dict.fromkeys(PER_VARIANT[:-1], 2) | {"report": 1, "all_variants": 1}


# The keys of a dataset that neither tool tracks, and why.
NOT_FOLLOWED = {
    "name": "names the folders: another one begins from nothing",
    "schedule": "a name; what the file says is followed",
    "test_labelled": "whether evaluate runs at all",
}


@pytest.mark.parametrize(
    ("key", "value", "first"),
    [
        ("source", {"render": {"size": 128, "seed": 1, "images": {"train": 4, "val": 1}}}, "download"),
        ("expected", {"val": {"images": 1}}, "download"),
        ("splits", {}, "download"),
        ("train_splits", ["train", "val"], "split_train"),
        ("test_split", "train", "predict"),
        ("classes", list(reversed(DOTA_V1_CLASSES)), "download"),
        ("patch", {"size": 128, "overlap": 0}, "split_train"),
    ],
)
def test_keys_of_a_dataset(finished, kept_configs, key, value, first):
    path = finished / "configs/datasets/tiny.yaml"
    dataset = yaml.safe_load(path.read_text())
    if key == "splits":  # only for a folder
        splits = {
            name: {"images": f"{name}/images", "labels": f"{name}/labelTxt"} for name in ("train", "val")
        }
        dataset |= {"source": {"folder": str(finished / "data/tiny/raw")}}
        path.write_text(yaml.safe_dump(dataset | {"splits": splits}))
    else:
        path.write_text(yaml.safe_dump(dataset | {key: value}))
    assert first in dry_run(finished, *REAL)


def test_every_key_of_a_dataset_is_followed_or_not_on_purpose():
    from tiltbox.settings.datasets import Dataset

    (mark,) = (each for each in test_keys_of_a_dataset.pytestmark if each.name == "parametrize")
    assert {row[0] for row in mark.args[1]} | set(NOT_FOLLOWED) == set(Dataset.model_fields)


@pytest.fixture
def own(quick) -> Path:
    """A project beside a folder of pictures, with its dataset file; nothing is read of them."""
    for split in ("train", "val"):
        for file in ("images/a.png", "labelTxt/a.txt"):
            path = quick / "pictures" / split / file
            path.parent.mkdir(parents=True)
            path.write_text(file)
    mine = "{name: mine, source: {folder: pictures}, schedule: smoke, patch: {size: 128, overlap: 0}}"
    (quick / "mine.yaml").write_text(mine)
    return quick


def test_edits_in_a_folder_are_noticed_where_they_count(own):
    """A corrected label in val does not train anything again."""
    settings = ("dataset=mine.yaml", "gpus=0", "--", f"results/mine/{TWO[0]}/train/checkpoint.pth")
    settings += ("data/mine/patches/val/manifest.json",)
    for file, text, jobs in [
        ("train/images/.DS_Store", "left by a file manager", {}),
        ("val/labelTxt/a.txt", "edited", {"split_test": 1}),
        ("train/labelTxt/a.txt", "edited", {"split_train": 1, "train": 1}),
    ]:
        done = call("snakemake", "--config", *settings, at=own)
        assert done.returncode == 0, done.stdout + done.stderr
        assert dry_run(own, *settings) == {}
        (own / "pictures" / file).write_text(text)
        assert dry_run(own, *settings) == jobs
    assert (own / "trainings").read_text().split() == ["begin", "end"]


def test_another_patch_size_runs_all_but_the_download_again(finished, kept_configs):
    path = finished / "configs/datasets/tiny.yaml"
    path.write_text(path.read_text().replace("overlap: 24", "overlap: 32"))
    jobs = dry_run(finished, *REAL)
    assert jobs == dict.fromkeys(PER_VARIANT[:-1], 2) | dict.fromkeys(
        ("split_train", "split_test", "report", "all_variants"), 1
    )


@pytest.fixture
def kept_configs(finished):
    """The settings of the finished project are as before when the test is over."""
    before = {path: path.read_text() for path in (finished / "configs").rglob("*.yaml")}
    yield
    for path, text in before.items():
        path.write_text(text)


def change_row(folder: Path, name: str, **change) -> None:
    path = folder / "configs/variants.yaml"
    table = yaml.safe_load(path.read_text())
    table["variants"][name] |= change
    path.write_text(yaml.safe_dump(table))
