"""The real Snakemake on a copy of the workflow."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
import yaml
from programs import BIN, PER_VARIANT, ROOT, TWO, change_row, dry_run, jobs_of, program, tried, with_stand_ins

from tiltbox.model.checkpoint import save_checkpoint

ALL = yaml.safe_load((ROOT / "configs/config.yaml").read_text())["variants"]
ONCE = ("download", "split_train", "split_test", "tracking", "report", "all_variants")
REAL = ["dataset=tiny", f"variants={json.dumps(TWO)}", "gpus=0"]
pytestmark = pytest.mark.usefixtures("preloaded")


@pytest.fixture(scope="module")
def fresh(copy_project, tmp_path_factory) -> Path:
    """A project in which nothing has run yet; only for dry runs."""
    return copy_project(tmp_path_factory.mktemp("fresh"))


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
    done = tried("snakemake", *arguments, at=folder, TORCH_HOME=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert (folder / mark).exists()
    (copy,) = (tmp_path / "cache").rglob("*.pth")
    assert copy.read_bytes() == published.read_bytes()


def test_weights_that_cannot_be_fetched_end_it_before_a_training(copy_project, tmp_path, closed):
    folder = copy_project(tmp_path)
    table = folder / "configs/variants.yaml"
    table.write_text(re.sub("^weights: .*$", f"weights: {closed}", table.read_text(), flags=re.MULTILINE))
    real = f'[ "$1" = weights ] && exec {BIN / "tiltbox"} "$@"\n'
    program(folder / "bin/tiltbox", real + 'exec stand_in "$@"\n')
    done = tried(
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
    commands = tried("snakemake", "-n", "--printshellcmds", "--config", *REAL, "track=false", at=fresh).stdout
    assert "tiltbox train" in commands
    assert "--track" not in commands and "tiltbox tracking" not in commands
    assert "--track tiny/yoloms" in tried("snakemake", "-np", "--config", *REAL, at=fresh).stdout


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
    done = tried("snakemake", "--dry-run", "--config", setting, at=fresh)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"snakemake: {message}"
    assert "Traceback" not in done.stderr and "Job stats" not in done.stdout


def test_a_contradiction_in_a_row_names_the_variant(fresh, copy_project, tmp_path):
    folder = copy_project(tmp_path)
    change_row(folder, "yoloms-s-current", query_size=None)
    done = tried("snakemake", "--dry-run", at=folder)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "configs/variants.yaml: variants.yoloms-s-current: attention and query_size go together" in last


def test_a_workstation_with_one_gpu(fresh):
    """It would silently train on the CPU."""
    done = tried("snakemake", "--dry-run", "--config", "dataset=dota", at=fresh, CUDA_VISIBLE_DEVICES="0")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "snakemake: gpus: schedule dota-2gpu wants 2 GPUs, but this machine has 1;"
        " choose another schedule (such as dota-1gpu), gpus=1 or gpus=0"
    )


def test_remarks(fresh):
    done = tried("snakemake", "--dry-run", "--config", "dataset=mini", "schedule=dota-1gpu", at=fresh)
    remarks = [line for line in done.stderr.splitlines() if line.startswith("snakemake: ")]
    assert len(remarks) == 2 and "CPU" in remarks[0]
    assert "patch.size" in remarks[1] and "image_size" in remarks[1]


def test_a_dataset_without_a_schedule(fresh, tmp_path):
    """The training chooses one when there are patches; nothing is downloaded before."""
    (tmp_path / "pictures").mkdir()
    dataset = tmp_path / "mine.yaml"
    dataset.write_text("{name: mine, source: {folder: pictures}}")
    done = tried("snakemake", "--dry-run", "--config", f"dataset={dataset}", at=fresh)
    assert done.returncode == 0, done.stderr
    remarks = [line for line in done.stderr.splitlines() if line.startswith("snakemake: ")]
    assert len(remarks) == 2 and "CPU, with schedule auto" in remarks[0]
    assert "chosen when there are patches" in remarks[1] and "logs/mine/VARIANT/train.log" in remarks[1]
    assert "weights" not in done.stdout


def test_no_file_of_an_unknown_variant_can_be_asked_for(fresh):
    done = tried("snakemake", "--dry-run", "results/mini/yoloms-m-current/train/checkpoint.pth", at=fresh)
    assert done.returncode == 1
    assert "MissingRuleException" in done.stdout + done.stderr


def test_lint(fresh):
    done = tried("snakemake", "--lint", at=fresh)
    assert "your workflow is in a good condition" in done.stdout + done.stderr
    assert done.returncode == 0


def test_formatted(fresh):
    done = tried("snakefmt", "--check", "Snakefile", "workflow", at=fresh)
    assert done.returncode == 0, done.stderr


def commands_in(document: str) -> set[str]:
    """Every command line, in a block or in a sentence, with the reader's own names replaced by ours."""
    text = (ROOT / document).read_text()
    fence = re.MULTILINE | re.DOTALL
    blocks, prose = re.findall(r"^```\n(.*?)^```", text, fence), re.sub(r"^```.*?^```", "", text, flags=fence)
    lines = re.findall(r"^snakemake [^#\n]+", "\n".join(blocks), re.MULTILINE)
    lines += [" ".join(line.split()) for line in re.findall(r"`(snakemake [^`]+)`", prose)]
    lines = [re.sub(r"path/to/\w+\.yaml", "configs/datasets/tiny.yaml", line) for line in lines]
    return {line.replace("my-detector", ALL[0]) for line in lines}


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/adding-a-detector.md"])
def test_commands_in_documents(fresh, document):
    """Each can be started as it is written."""
    commands = commands_in(document)
    assert commands
    for line in commands:
        done = tried(*shlex.split(line), "--dry-run", "--quiet", at=fresh, CUDA_VISIBLE_DEVICES="0,1")
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
    done = tried("snakemake", "-n", "--cores", "12", *targets, *settings, at=fresh)
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
    return with_stand_ins(copy_project(tmp_path))


TOLD_WHILE_SELECTING = """
import signal
from snakemake.scheduling.milp import Scheduler

select_jobs = Scheduler.select_jobs

def told_to_end(*arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    return select_jobs(*arguments)

Scheduler.select_jobs = told_to_end
"""


def test_a_run_that_is_told_to_end_while_it_selects_jobs(quick):
    """Snakemake holds a lock then, for which it would wait itself."""
    with (quick / "Snakefile").open("a") as file:
        file.write(TOLD_WHILE_SELECTING)
    settings = ["--config", "dataset=tiny", "gpus=0", f"variants={ALL[0]}"]
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *settings]
    done = tried("timeout", "--signal=KILL", "100", *command, at=quick)
    assert done.returncode == 1, done.stderr
    assert not (quick / "results/tiny/leaderboard.md").exists()


@pytest.mark.parametrize(("limit", "most"), [([], 2), (["--resources", "gpu=1"], 1)])
def test_no_more_trainings_than_gpus(quick, limit, most):
    targets = [f"results/tiny/{name}/train/checkpoint.pth" for name in ALL]
    settings = ["--config", "dataset=tiny", "--"]
    visible = {"CUDA_VISIBLE_DEVICES": "0,1", "TRAINING_SECONDS": "0.5"}
    done = tried("snakemake", "--cores", "16", *limit, *settings, *targets, at=quick, **visible)
    assert done.returncode == 0, done.stderr
    steps = [1 if line == "begin" else -1 for line in (quick / "trainings").read_text().split()]
    at_once = [sum(steps[: end + 1]) for end in range(len(steps))]
    assert (len(steps), max(at_once), at_once[-1]) == (2 * len(ALL), most, 0)
    sizes = re.findall(r"^train yoloms-(\w+)-", (quick / "calls").read_text(), flags=re.MULTILINE)
    assert sizes == ["xs", "xs", "s", "s", "l", "l"], "the first scores are there early"


def test_prediction_takes_one_gpu(quick):
    """Those of a training may be on several nodes."""
    settings = ["--config", "dataset=tiny", "gpus=2", f"variants={ALL[0]}"]
    done = tried(
        "snakemake", "--cores", "16", "all_variants", *settings, at=quick, CUDA_VISIBLE_DEVICES="0,1"
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^(train|predict) .*--gpus (\d)", (quick / "calls").read_text(), flags=re.MULTILINE)
    assert found == [("train", "2"), ("predict", "1")]


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


FAILS_ONCE = """
    if [[ $1 == train ]]; then
        echo "attempt $TILTBOX_ATTEMPT" >> trainings
        [[ $TILTBOX_ATTEMPT == 2 ]] || exit 1
    fi
    exec stand_in "$@"
"""


@pytest.mark.parametrize("profile", ["--workflow-profile", "--profile"])
def test_slurm(quick, profile):
    """From a login node without GPUs; neither cores nor GPUs are given. The training fails at first."""
    for name, script in (SLURM | {"tiltbox": FAILS_ONCE}).items():
        program(quick / "bin" / name, script)
    target = "results/dota/yoloms-xs-current/train/checkpoint.pth"
    options = ["--default-resources", "slurm_account=account", "slurm_partition=partition", "--retries", "1"]
    options += ["--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1"]
    options += ["--latency-wait", "3", "--config", "dataset=dota", "--", target]
    done = tried("snakemake", profile, "profiles/slurm", *options, at=quick)
    log = quick / "jobs.log"
    assert done.returncode == 0, done.stderr + (log.read_text() if log.exists() else "")
    assert (quick / target).exists()
    assert (quick / "trainings").read_text().splitlines() == ["attempt 1", "attempt 2", "begin", "end"]
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
        done = tried("snakemake", "--config", *settings, at=own)
        assert done.returncode == 0, done.stdout + done.stderr
        assert dry_run(own, *settings) == {}
        (own / "pictures" / file).write_text(text)
        assert dry_run(own, *settings) == jobs
    assert (own / "trainings").read_text().split() == ["begin", "end"]
