"""What `make wheelhouse` selects, and how `make setup` installs from it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SPEC = importlib.util.spec_from_file_location("wheelhouse", ROOT / "tools/wheelhouse.py")
wheelhouse = sys.modules[SPEC.name] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(wheelhouse)

HERE = wheelhouse.Target("3.12", "linux_x86_64")
EXACT = dict.fromkeys(("a", "b", "c", "d", "opencv-python", "imaug"), "1.0")


def selected(needs: dict[str, list[str]], *wanted: str, target=HERE) -> wheelhouse.Selection:
    """Of an index that has these packages, with what each requires."""
    requirements = wheelhouse.applying(wanted, target)
    return wheelhouse.select(requirements, EXACT, target, lambda pins: {name: needs[name] for name in pins})


def test_nothing_wanted_nothing_fetched():
    assert selected({}).lines() == []


def test_what_is_required_by_what_is_required():
    needs = {"a": ["B>=1", "torch>=2.1"], "b": ["c", "a"], "c": []}
    assert selected(needs, "a", "torch>=2.10").lines() == [
        *("a==1.0", "b==1.0", "c==1.0"),
        *("torch>=2.1", "torch>=2.10"),
    ]


def test_extras_bring_their_requirements_also_after_the_package():
    needs = {"a": ['b; extra == "more"'], "b": [], "c": ["a[more]"]}
    assert selected(needs, "a").carried.keys() == {"a"}
    assert selected(needs, "a", "c").carried.keys() == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("python", "platform", "expected"),
    [
        ("3.12", "linux_x86_64", {"a", "b"}),
        ("3.11", "linux_x86_64", {"a"}),
        ("3.12", "linux_aarch64", {"a", "b", "c"}),
        ("3.12", "macosx_14_0_arm64", {"a", "b", "d"}),
    ],
)
def test_conditions_are_those_of_the_machine(python, platform, expected):
    conditions = (
        'b; python_version >= "3.12"',
        'c; platform_machine == "aarch64"',
        'd; sys_platform == "darwin"',
    )
    needs = {"a": list(conditions), "b": [], "c": [], "d": []}
    assert selected(needs, "a", target=wheelhouse.Target(python, platform)).carried.keys() == expected


@pytest.mark.parametrize(
    ("there", "lines"),
    [
        ("2.0", ["a==1.0", "b<3"]),
        ("3.0", ["a==1.0", "b==1.0", "c==1.0"]),
        ("", ["a==1.0", "b"]),  # whichever it is
    ],
)
def test_packages_of_the_machine_are_left_out_where_they_fit(there, lines):
    target = wheelhouse.Target("3.12", "linux_x86_64", {"b": there})
    assert selected({"a": ["b<3"], "b": ["c"], "c": []}, "a", target=target).lines() == lines


def test_a_package_that_does_not_fit_everywhere_is_carried():
    target = wheelhouse.Target("3.12", "linux_x86_64", {"b": "3.0"})
    assert selected({"a": ["b", "c"], "b": [], "c": ["b<3"]}, "a", target=target).left == frozenset()


def test_what_is_not_used_is_left_out():
    assert selected({"a": ["opencv_python", "imaug>=1"]}, "a").lines() == ["a==1.0"]


def test_a_package_without_exact_version():
    with pytest.raises(SystemExit, match=r"constraints\.txt: no version of new-one; add one"):
        selected({"a": ["new_one"]}, "a")


def test_parts():
    core, whole = map(wheelhouse.needed, ("core", "all"))
    assert set(wheelhouse.PYPROJECT["project"]["dependencies"]) < set(whole)
    core, whole = ({canonicalize_name(Requirement(each).name) for each in part} for part in (core, whole))
    assert core < whole and whole - core >= wheelhouse.WORKFLOW | {"mypy"}
    assert core >= {"torch", "onedl-mmcv", "pytest", "setuptools"}
    assert whole - wheelhouse.exact_versions().keys() == {"torch"}


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder of wheels, the only place where pip may look."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def make_wheel(folder: Path, name: str, tag: str = "py3-none-any", requires: str = "") -> str:
    wheel = f"{name}-1.0-{tag}.whl"
    with zipfile.ZipFile(folder / wheel, "w") as archive:
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        needs = f"Requires-Dist: {requires}\n" if requires else ""
        archive.writestr(f"{name}-1.0.dist-info/METADATA", metadata + needs)
        archive.writestr(f"{name}-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
        archive.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return wheel


def test_wheels_are_those_of_the_machine(index, tmp_path, monkeypatch):
    monkeypatch.setattr(wheelhouse, "needed", lambda parts: ["a"])
    monkeypatch.setattr(wheelhouse, "exact_versions", lambda: EXACT)
    for tag in ("cp311-cp311-manylinux_2_17_x86_64", "cp312-cp312-manylinux_2_39_x86_64"):
        make_wheel(index, "a", tag)
    for tag in ("cp312-cp312-musllinux_1_2_x86_64", "cp312-cp312-manylinux_2_17_aarch64"):
        make_wheel(index, "a", tag)
    fitting = make_wheel(index, "a", "cp312-cp312-manylinux_2_17_x86_64", "b>=1")
    pure = make_wheel(index, "b")
    wheelhouse.collect(tmp_path / "out", "core", HERE)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {fitting, pure, "requirements.txt"}
    assert (tmp_path / "out/requirements.txt").read_text() == "a==1.0\nb==1.0\n"


def test_a_wheelhouse_is_replaced_whole_or_not(index, tmp_path, monkeypatch):
    monkeypatch.setattr(wheelhouse, "needed", lambda parts: ["a"])
    monkeypatch.setattr(wheelhouse, "exact_versions", lambda: EXACT)
    out = tmp_path / "out"
    out.mkdir()
    for name in ("requirements.txt", "old-1.0-py3-none-any.whl"):
        (out / name).touch()
    with pytest.raises(SystemExit, match="no wheelhouse was made"):
        wheelhouse.collect(out, "core", HERE)
    assert (out / "old-1.0-py3-none-any.whl").exists()
    new = make_wheel(index, "a")
    wheelhouse.collect(out, "core", HERE)
    assert {path.name for path in out.iterdir()} == {new, "requirements.txt"}


def test_other_folders_are_not_replaced(tmp_path):
    (tmp_path / "photo.png").touch()
    with pytest.raises(SystemExit, match="not an earlier wheelhouse; name a new folder"):
        wheelhouse.collect(tmp_path, "core", HERE)
    assert (tmp_path / "photo.png").exists()


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("--python", "3.10", "'3.10' is not a Python that tiltbox runs on, >=3.11, such as 3.12"),
        ("--python", "3.12.3", "'3.12.3' is not a Python"),
        ("--platform", "win_amd64", "'win_amd64' is not like linux_x86_64"),
        ("--present", "missing.txt", "'missing.txt' is not a text file that can be read"),
    ],
)
def test_bad_options(capsys, option, value, problem):
    with pytest.raises(SystemExit):
        wheelhouse.parser().parse_args(["out", option, value])
    assert problem in capsys.readouterr().err


def test_lists_of_packages():
    lines = ["Foo_Bar==2.0+cu130", "scipy", "torch==2.11.0", "here @ file:///tmp/here", "-e git+there", ""]
    assert wheelhouse.present_packages(lines) == {"foo-bar": "2.0+cu130", "scipy": "", "here": ""}


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Without what a `make test` that runs this test was told, and with none of pip's settings."""
    passed_on = ("MAKE", "PIP_", "PYTHON", "VENV", "WHEELHOUSE", "PLATFORM", "PARTS", "PRESENT")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(passed_on)}
    variables["PIP_CONFIG_FILE"] = os.devnull
    return subprocess.run(["make", *arguments], cwd=ROOT, env=variables, capture_output=True, text=True)


def planned(tmp_path: Path, *arguments: str) -> str:
    """The commands, with a line for each."""
    return make("--dry-run", f"VENV={tmp_path / 'venv'}", *arguments).stdout.replace("\\\n", "")


def test_make_setup_brings_everything_from_an_index(tmp_path):
    commands = planned(tmp_path, "setup")
    assert "--constraint constraints.txt --editable '.[test,dev]'" in commands
    assert "install torch==" in commands and "--no-index" not in commands


def test_make_setup_asks_no_index_where_there_is_a_wheelhouse(tmp_path):
    commands = planned(tmp_path, "setup", "WHEELHOUSE=carried")
    installs = [line for line in commands.splitlines() if " install " in line]
    assert len(installs) == 2 and all("--no-index --find-links carried" in line for line in installs)
    assert "constraints.txt" not in commands and "torch" not in commands


def test_make_wheelhouse_passes_its_options(tmp_path):
    assert planned(tmp_path, "wheelhouse").split() == ["python3", "tools/wheelhouse.py", "wheelhouse"]
    machine = "PYTHON_VERSION=3.12", "PLATFORM=linux_aarch64"
    command = planned(tmp_path, "wheelhouse", "WHEELHOUSE=out", *machine, "PARTS=all", "PRESENT=list.txt")
    expected = "out --python 3.12 --platform linux_aarch64 --parts all --present list.txt"
    assert command.split()[2:] == expected.split()


@pytest.mark.own_processes
def test_make_setup_from_a_wheelhouse(tmp_path):
    """The wheelhouse's packages take precedence over the machine's, which must have torch.

    The last step, tiltbox itself, is not reached: it writes to the project's folder.
    """
    options = f"VENV={tmp_path / 'venv'}", f"PYTHON={sys.executable}", f"WHEELHOUSE={tmp_path}"
    make_wheel(tmp_path, "numpy")
    (tmp_path / "requirements.txt").write_text("numpy==1.0\ntorch>=2.10\n")
    alone = make("setup", *options)
    assert "No matching distribution found for torch>=2.10" in alone.stderr
    assert "docs/offline.md says what to do" in alone.stdout
    beside = make("setup", *options, "VENV_OPTIONS=--system-site-packages")
    assert "No matching distribution found for setuptools" in beside.stderr
    say = "from importlib.metadata import version; print(version('numpy'), version('torch'))"
    found = subprocess.run([tmp_path / "venv/bin/python", "-c", say], capture_output=True, text=True).stdout
    assert found.split() == ["1.0", version("torch")]
