"""Programs without the time that their imports take, which is most of the time of a dry run or a tiny stage.

``python preloaded.py NAME FOLDER`` imports the program once and puts one of the same name into the folder.
Each call of that runs the real one in a fork, with the caller's arguments, folder, environment and streams.
Signals are not passed on: tests that end a program call the real one. It ends with its standard input.

``python`` is this Python, with all that tiltbox imports, as on a machine without GPUs; with it comes
``tiltbox``. If the folder has a ``python``, it is also the ``sys.executable`` of the others.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

PYTHON = sys.executable
ROOT = Path(__file__).resolve().parents[2]
# What each program imports when it is called; its ``main`` is in the first.
IMPORTED = {
    "snakemake": (
        *("snakemake.cli", "snakemake.assets", "snakemake.profiles", "snakemake.storage", "smart_open"),
        *("snakemake.report.html_reporter", "argparse_dataclass"),
        *("snakemake_logger_plugin_tiltbox", "tiltbox.freshness", "tiltbox.versioning"),
    ),
    "dvc": (
        *("dvc.cli", "dvc.cli.parser", "dvc.repo", "dvc.repo.index", "dvc.scm", "dvc.rwlock", "dvc.compare"),
        *("dvc.cachemgr", "dvc.data_cloud", "dvc.utils.strictyaml", "dvc_render", "pygit2", "ruamel.yaml"),
        *("networkx", "psutil"),
    ),
    "stand_in": ("stand_in",),
    "python": ("preloaded",),
}
# What tiltbox imports only where it is used, or its libraries when they are.
LATER = (
    *("torch._dynamo", "yapf.yapflib.yapf_api", "setuptools", "mmrotate.utils", "PIL.WebPImagePlugin"),
    *("mlflow", "mlflow.store.tracking.sqlalchemy_store", "pyarrow.pandas_compat", "pyarrow.compute"),
)
CLIENT = """\
#!{python} -IS
import json, os, socket, sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect({place!r})
    call = json.dumps([{words!r} + sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(call).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(call)
    sys.exit(int(server.recv(8)))
"""


def main() -> None:
    """What ``python -m MODULE`` and ``python SCRIPT`` do; this Python itself does the rest.

    When it is imported, tiltbox decides whose settings it uses, so calls from a folder without ``configs``
    are left to this Python, too.
    """
    _, *words = sys.argv
    known = words and (words[0] == "-m" or not words[0].startswith("-"))
    if not known or not Path("configs").exists():
        os.execv(PYTHON, [PYTHON, *words])
    gc.enable()
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if words[0] == "-m":
        _, module, *arguments = words
        sys.argv = [module, *arguments]
        sys.modules.pop(module, None)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")


def import_tiltbox() -> None:
    """Every module, and what is imported later."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import tiltbox

    for module in pkgutil.walk_packages(tiltbox.__path__, "tiltbox."):
        if not module.name.endswith((".__main__", ".kernels")):
            importlib.import_module(module.name)
    for name in LATER:
        importlib.import_module(name)
    from numba.core.registry import cpu_target

    from tiltbox.model.compat import import_openmmlab

    import_openmmlab()
    cpu_target.target_context.refresh()  # imports what compiled functions need


def serve(name: str, folder: Path) -> None:
    """Answer each client in a fork.

    What was imported is frozen: no fork looks for garbage in it, which would copy it.
    """
    gc.disable()
    os.chdir(ROOT)  # which has configs, so that those of the caller's folder are used
    place = str(folder / f"{name}.socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(place)
        server.listen()
        program, *_ = [importlib.import_module(module) for module in IMPORTED[name]]
        words = {name: [name]}
        if name == "python":
            import_tiltbox()
            words["tiltbox"] = [name, "-m", "tiltbox"]
        gc.freeze()
        for each, first in words.items():
            client = folder / each
            client.write_text(CLIENT.format(python=PYTHON, place=place, words=first))
            client.chmod(0o755)
        while server in select.select([server, sys.stdin], [], [])[0]:
            caller, _ = server.accept()
            if os.fork() == 0:
                server.close()
                if (folder / "python").exists():
                    sys.executable = str(folder / "python")
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
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    sys.argv, folder, environment = json.loads(called)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    end(main)


def end(main: Callable[[], int | None]) -> NoReturn:
    """Exit as Python does, except that modules are not cleared, which would copy them first."""
    try:
        code = main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
