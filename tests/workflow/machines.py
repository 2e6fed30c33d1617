"""Machines on one machine: each has a network and a name of its own; kernel and drive are shared.

They are namespaces of Linux, which vanish with the last process in them, so that nothing is left on the real
machine however this ends. To create them takes rights of root.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tiltbox.processes import end_with_parent

LOGIN = "login"
NAMESPACES = ("--net", "--mount", "--uts")
TRY = ("unshare", *NAMESPACES, "ip", "link", "add", "tried", "type", "veth")


class Machine(NamedTuple):
    """A name, its address, and the words that start a command there."""

    name: str
    address: str
    on: tuple[str, ...] = ()


def missing() -> str | None:
    """Why there can be no machines here, or None."""
    try:
        subprocess.run(TRY, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        return "needs unshare: apt-get install util-linux"
    except subprocess.CalledProcessError as error:
        return f"needs ip (apt-get install iproute2) and the right to make networks ({error.stderr.strip()})"
    return None


def entered(process: int) -> tuple[str, ...]:
    """The words that start a command in the namespaces of a process, in the folder /."""
    return ("nsenter", "--target", str(process), *NAMESPACES, "--")


@contextmanager
def connected(folder: Path, names: list[str]) -> Iterator[list[Machine]]:
    """Machines that reach each other by name. The first is the one of this process, in ``NAMESPACES``.

    Args:
        folder: For the list of hosts.
    """
    addresses = {name: f"10.0.0.{number}" for number, name in enumerate([LOGIN, *names], 1)}
    hosts = folder / "hosts"
    hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{at} {name}\n" for name, at in addresses.items()))
    run("mount", "--bind", str(hosts), "/etc/hosts")
    run("hostname", LOGIN)
    run("ip", "link", "add", "switch", "type", "bridge")
    run("ip", "address", "add", f"{addresses[LOGIN]}/24", "dev", "switch")
    for device in ("lo", "switch"):
        run("ip", "link", "set", device, "up")
    with ExitStack() as machines:
        yield [
            Machine(LOGIN, addresses[LOGIN], entered(os.getpid())),
            *(machines.enter_context(machine(name, addresses[name])) for name in names),
        ]


@contextmanager
def machine(name: str, address: str) -> Iterator[Machine]:
    """Another machine, connected to the first by a cable of its name."""
    command = ["unshare", *NAMESPACES, "sh", "-c", f"hostname {name} && echo ready && exec sleep infinity"]
    keeper = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=partial(end_with_parent, os.getpid())
    )
    try:
        assert keeper.stdout is not None and keeper.stdout.readline() == "ready\n"
        on = entered(keeper.pid)
        run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(keeper.pid))
        run("ip", "link", "set", name, "master", "switch", "up")
        run(*on, "ip", "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            run(*on, "ip", "link", "set", device, "up")
        yield Machine(name, address, on)
    finally:
        keeper.kill()
        keeper.wait()


def run(*command: str) -> None:
    subprocess.run(command, check=True)
