"""A real SLURM of one node with two simulated GPUs, in a folder and with ports of its own.

``python tests/workflow/slurm.py FOLDER`` starts it, prints the path of its ``slurm.conf`` (for the variable
SLURM_CONF) when it accepts jobs, and ends it, with all its jobs, when standard input is closed. So it ends
with the program that started it, however that ends. It needs no rights of root and touches no other SLURM.
"""

from __future__ import annotations

import getpass
import os
import platform
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from tiltbox.processes import end_with_parent

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
INSTALLING = "apt-get install slurm-wlm munge"
ADMIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # where daemons are, often not in PATH
PATIENCE = 60  # seconds in which daemons start, or jobs end

# Credentials that expire soon let a requeued job start again after seconds instead of two minutes. There are
# no cgroups in a container. The node claims more cores and memory than the machine may have.
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.txt
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=5,bf_interval=5
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
GresTypes=gpu
KillWait=30
MinJobAge=3600
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=64000 Gres=gpu:2 State=UNKNOWN
PartitionName=gpus Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
GPUS = "NodeName={host} Name=gpu File=/dev/tty[0-1]\n"


def missing() -> str | None:
    """What to do about programs that are missing, or None."""
    absent = [name for name in PROGRAMS if found(name) is None]
    return f"needs SLURM ({', '.join(absent)} not found): {INSTALLING}" if absent else None


def found(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *ADMIN]))


@contextmanager
def running(folder: Path) -> Iterator[Path]:
    """The daemons, as long as this lasts; gives the path of ``slurm.conf``."""
    config = configured(folder)
    os.environ["SLURM_CONF"] = str(config)
    with ExitStack() as daemons:
        own = {name: f"{folder / 'munge'}.{name}" for name in ("key", "socket", "pid", "seed", "log")}
        munge = [f"--{option}={own[name]}" for option, name in (("socket", "socket"), ("pid-file", "pid"))]
        munge += [f"--{name}-file={own[name]}" for name in ("key", "log", "seed")]
        daemons.enter_context(daemon(folder, "munged", "--foreground", "--force", *munge))
        wait_for(folder, lambda: Path(own["socket"]).exists())
        daemons.enter_context(daemon(folder, "slurmctld", "-D", "-f", config))
        daemons.enter_context(daemon(folder, "slurmd", "-D", "-f", config))
        wait_for(folder, lambda: answer("sinfo", "--noheader", "--format=%T") == "idle")
        daemons.callback(end_jobs, folder)
        yield config


def configured(folder: Path) -> Path:
    """Write the configuration and the key."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        ports = {"controller_port": one.getsockname()[1], "node_port": two.getsockname()[1]}
    host, user = platform.node().partition(".")[0], getpass.getuser()
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(host=host, user=user, folder=folder, **ports))
    (folder / "gres.conf").write_text(GPUS.format(host=host))
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    return config


@contextmanager
def daemon(folder: Path, name: str, *arguments: str | Path) -> Iterator[None]:
    """A daemon in the foreground, in a session of its own, so that Ctrl-C leaves its end to this program."""
    with (folder / f"{name}.output").open("w") as output:
        process = subprocess.Popen(
            [found(name) or name, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=partial(end_with_parent, os.getpid()),
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_for(folder: Path, condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > until:
            logs = [*folder.glob("*.output"), *folder.glob("*.log")]
            raise TimeoutError("\n".join(f"{path}:\n{path.read_text()[-2000:]}" for path in logs))
        time.sleep(0.1)


def answer(*command: str) -> str:
    """What a command of SLURM prints; empty while the daemons do not answer."""
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def end_jobs(folder: Path) -> None:
    """Processes of jobs would outlive the daemons."""
    answer("scancel", "--signal=KILL", "--full", f"--user={getpass.getuser()}")
    answer("scancel", f"--user={getpass.getuser()}")
    with suppress(TimeoutError):
        wait_for(folder, lambda: answer("squeue", "--noheader") == "")


def main(folder: Path) -> None:
    if problem := missing():
        sys.exit(problem)
    with running(folder.resolve()) as config:
        print(config, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
