"""Snakemake and DVC without the time that their imports take, which is most of the time of a dry run.

``python preloaded.py NAME FOLDER`` imports the program once and puts one of the same name into the folder.
Each call of that runs the real one in a fork, with the caller's arguments, folder, environment and streams.
Signals are not passed on: tests that end a program call the real one. It ends with its standard input.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

# What each program imports when it is called; its ``main`` is in the first.
IMPORTED = {
    "snakemake": (
        *("snakemake.cli", "snakemake.assets", "snakemake.profiles", "snakemake.storage", "smart_open"),
        *("snakemake_logger_plugin_tiltbox", "tiltbox.freshness", "tiltbox.versioning"),
    ),
    "dvc": (
        *("dvc.cli", "dvc.repo", "dvc.scm", "dvc.rwlock", "dvc.compare", "dvc.data_cloud", "dvc_render"),
        *("dvc.commands.status", "dvc.commands.repro", "networkx", "psutil"),
    ),
    "stand_in": ("stand_in",),
}
CLIENT = """\
#!{python} -IS
import json, os, socket, sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect({place!r})
    call = json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(call).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(call)
    sys.exit(int(server.recv(8)))
"""


def serve(name: str, folder: Path) -> None:
    """Answer each client in a fork."""
    place = str(folder / f"{name}.socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(place)
        server.listen()
        client = folder / name
        client.write_text(CLIENT.format(python=sys.executable, place=place))
        program, *_ = [importlib.import_module(module) for module in IMPORTED[name]]
        client.chmod(0o755)
        while server in select.select([server, sys.stdin], [], [])[0]:
            caller, _ = server.accept()
            if os.fork() == 0:
                server.close()
                answer(caller, program.main)
            caller.close()
            with suppress(ChildProcessError):  # those that have answered
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def answer(caller: socket.socket, main: Callable[[], int | None]) -> None:
    """Run the program in one more fork, and tell the caller its exit code when it has ended."""
    size, streams, *_ = socket.recv_fds(caller, 8, 3)
    called = b""
    while len(called) < int.from_bytes(size, "big"):
        called += caller.recv(1 << 20)
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        caller.sendall(b"%d" % (os.waitstatus_to_exitcode(status) % 256))
        os._exit(0)
    caller.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.argv, folder, environment = json.loads(called)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.exit(main())


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
