"""A real SLURM whose nodes have two simulated GPUs each, in a folder and with ports of its own.

``python tests/workflow/slurm.py FOLDER`` starts it, prints the path of its ``slurm.conf`` (for the variable
SLURM_CONF) when it accepts jobs, and ends it, with all its jobs, when standard input is closed. So it ends
with the program that started it, however that ends; only its folder stays if that is killed. It touches no
other SLURM.

It has one node, which is this machine, and needs no rights of root. If names of nodes follow, each is a
machine of its own (machines.py); then start it with ``unshare --net --mount --uts``.
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
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from machines import NAMESPACES, Machine, connected, entered

from tiltbox.processes import end_with_parent

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
INSTALLING = "apt-get install slurm-wlm munge"
ADMIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # where daemons are, often not in PATH
PATIENCE = 60  # seconds in which daemons start, or jobs end

# Credentials that expire soon let a requeued job start again after seconds instead of two minutes. There are
# no cgroups in a container. The node claims more cores and memory than the machine may have.
CONFIG = """\
ClusterName=test
SlurmctldHost={controller}
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
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
SlurmdTimeout=30
PartitionName=gpus Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeAddr={address} CPUs=16 RealMemory=64000 Gres=gpu:2 State=UNKNOWN\n"
GPUS = "NodeName={name} Name=gpu File=/dev/tty[0-1]\n"


@dataclass(frozen=True)
class Cluster:
    """A SLURM that runs; ``on`` starts a command on its login node, if that is not this machine."""

    config: Path
    on: tuple[str, ...] = ()

    def answer(self, *command: str) -> str:
        """What a command prints on the login node; empty while the daemons do not answer."""
        environment = os.environ | {"SLURM_CONF": str(self.config)}
        done = subprocess.run([*self.on, *command], env=environment, capture_output=True, text=True)
        return done.stdout.strip()


@contextmanager
def started(*names: str) -> Iterator[Cluster]:
    """A cluster in a process of its own, with a node on this machine, or on machines with these names."""
    apart = ["unshare", *NAMESPACES] if names else []
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:  # a short path, for the socket
        command = [*apart, sys.executable, __file__, folder, *names]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as keeper:
            assert keeper.stdin is not None and keeper.stdout is not None
            config = keeper.stdout.readline().strip()
            assert config, "SLURM does not start"
            try:
                yield Cluster(Path(config), entered(keeper.pid) if names else ())
            finally:
                keeper.stdin.close()


def missing() -> str | None:
    """What to do about programs that are missing, or None."""
    absent = [name for name in PROGRAMS if found(name) is None]
    return f"needs SLURM ({', '.join(absent)} not found): {INSTALLING}" if absent else None


def found(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *ADMIN]))


@contextmanager
def running(folder: Path, controller: Machine, nodes: list[Machine]) -> Iterator[Cluster]:
    """The daemons, as long as this lasts."""
    cluster = Cluster(configured(folder, controller, nodes))
    options = ("-D", "-f", cluster.config)
    with ExitStack() as daemons:
        own = {name: f"{folder / 'munge'}.{name}" for name in ("key", "socket", "pid", "seed", "log")}
        munge = [f"--{option}={own[name]}" for option, name in (("socket", "socket"), ("pid-file", "pid"))]
        munge += [f"--{name}-file={own[name]}" for name in ("key", "log", "seed")]
        daemons.enter_context(daemon(folder, "munged", "--foreground", "--force", *munge))
        wait_for(folder, lambda: Path(own["socket"]).exists())
        daemons.enter_context(daemon(folder, "slurmctld", *options))
        for node in nodes:
            daemons.enter_context(daemon(folder, "slurmd", *options, at=node))
        states = ("sinfo", "--noheader", "--Node", "--format=%T")
        wait_for(folder, lambda: set(cluster.answer(*states).split()) == {"idle"})
        daemons.callback(end_jobs, folder, cluster)
        yield cluster


def configured(folder: Path, controller: Machine, nodes: list[Machine]) -> Path:
    """Write the configuration and the key."""
    for name in ("state", *(f"spool-{node.name}" for node in nodes)):
        (folder / name).mkdir(parents=True)
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        ports = {"controller_port": one.getsockname()[1], "node_port": two.getsockname()[1]}
    place = f"{controller.name}({controller.address})"
    text = CONFIG.format(controller=place, user=getpass.getuser(), folder=folder, **ports)
    config = folder / "slurm.conf"
    config.write_text(text + "".join(NODE.format(**node._asdict()) for node in nodes))
    (folder / "gres.conf").write_text("".join(GPUS.format(name=node.name) for node in nodes))
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    return config


@contextmanager
def daemon(folder: Path, name: str, *arguments: str | Path, at: Machine | None = None) -> Iterator[None]:
    """A daemon in the foreground, in a session of its own, so that Ctrl-C leaves its end to this program."""
    with (folder / f"{name}{f'-{at.name}' if at else ''}.output").open("w") as output:
        process = subprocess.Popen(
            [*(at.on if at else ()), found(name) or name, *arguments],
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


def end_jobs(folder: Path, cluster: Cluster) -> None:
    """Processes of jobs would outlive the daemons."""
    cluster.answer("scancel", "--signal=KILL", "--full", f"--user={getpass.getuser()}")
    cluster.answer("scancel", f"--user={getpass.getuser()}")
    with suppress(TimeoutError):
        wait_for(folder, lambda: cluster.answer("squeue", "--noheader") == "")


def main(folder: Path, *names: str) -> None:
    if problem := missing():
        sys.exit(problem)
    folder = folder.resolve()
    with ExitStack() as stack:
        if names:
            controller, *nodes = stack.enter_context(connected(folder, list(names)))
        else:
            controller = Machine(platform.node().partition(".")[0], "127.0.0.1")
            nodes = [controller]
        print(stack.enter_context(running(folder, controller, nodes)).config, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
