"""The warm parent inside the sandbox: it has imported what is slow to import, and is forked for each submission.

It runs no learner's code itself, holds no secret, and never starts CUDA (a process that has done so cannot be forked).
The judge talks to it over a socket whose number is the first argument, in JSON, one message each way:

    {"do": "start", "nested", "keep", "scratch", "has_gpu", "limits"} with two file descriptors (the worker's socket, its output)
        -> {"id": 7}
    {"do": "end", "id": 7, "patience": 0.5}      kills everything that the worker started
        -> {"status": 0 to 255, as a shell counts, or null if it was alive, "cpu": seconds, "peak": bytes}

A message of its own tells that it is ready, or what failed: {"ready": [modules]} or {"error": "..."}.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from typing import Any, NoReturn

from autograder.judge import confine, evidence, processes, worker

# Variables that name folders: below the worker's scratch folder, or that folder itself.
SCRATCH_VARIABLES = {
    "HOME": "",
    "TMPDIR": "",
    "MPLCONFIGDIR": "",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "CUDA_CACHE_PATH": "cuda",
}
NOT_CONFINED = 125  # the exit status of a worker that could not be confined


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    try:
        if "--hide" in sys.argv:
            confine.hide()
        if "--plain" in sys.argv:
            confine.die_with_parent()
            confine.adopt_orphans()
        for name in sys.argv[2:]:
            if not name.startswith("--"):
                _preload(name)
        evidence.watch()
        threads = len(os.listdir("/proc/self/task"))
    except BaseException:
        control.send(json.dumps({"error": traceback.format_exc(limit=-2)[-2000:]}).encode())
        return
    gc.collect()
    gc.freeze()  # so that the children's garbage collector leaves these pages shared
    control.send(json.dumps({"ready": sys.argv[2:], "threads": threads}).encode())
    started: dict[int, tuple[int, int]] = {}  # id: the parent to wait for, the process to kill
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 4096, 2)
        if not message:
            return
        request = json.loads(message)
        if request["do"] == "start":
            reply = _start(control, request, descriptors, started)
        else:
            reply = _end(*started.pop(request["id"]), request["patience"])
            if "--plain" in sys.argv:  # no namespace ends with the worker
                processes.end_descendants(os.getpid())
                _bury()
        control.send(json.dumps(reply).encode())


def _preload(name: str) -> None:
    """Imports a module; `module:name` does what `from module import name` does."""
    module, _, attribute = name.partition(":")
    loaded = importlib.import_module(module)
    if attribute and not hasattr(loaded, attribute):
        importlib.import_module(f"{module}.{attribute}")


def _start(
    control: socket.socket,
    request: dict[str, Any],
    descriptors: list[int],
    started: dict[int, tuple[int, int]],
) -> dict[str, Any]:
    data, output = descriptors
    read_end, write_end = os.pipe()
    parent = os.fork()
    if parent == 0:
        try:
            os.close(read_end)
            control.close()
            _become_worker(request, data, output, write_end)
        except BaseException as error:
            os.write(write_end, f"! {error}".encode()[:1000])
        os._exit(NOT_CONFINED)
    for descriptor in (data, output, write_end):
        os.close(descriptor)
    answer = b""
    while piece := os.read(read_end, 1000):
        answer += piece
    os.close(read_end)
    # "p123" from the middle process and "ok" from the worker once it is confined, in either order, or "! reason".
    words, _, reason = answer.decode(errors="replace").partition("!")
    pids = [int(word[1:]) for word in words.split() if word.startswith("p")]
    if "ok" not in words.split() or len(pids) != 1:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        os.waitpid(parent, 0)
        return {"error": reason.strip() or "the worker ended before it was confined"}
    started[parent] = (parent, pids[0])
    return {"id": parent}


def _become_worker(request: dict[str, Any], data: int, output: int, report: int) -> NoReturn:
    """In the forked child: makes namespaces, forks once more into them, waits for that process."""
    limits = request["limits"]
    if request["nested"]:
        confine.new_namespaces(limits["file_bytes"], request["keep"])
    child = os.fork()
    if child:
        os.write(report, f"p{child} ".encode())
        for descriptor in (report, data, output):
            os.close(descriptor)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)
    try:
        os.setsid()
        os.nice(5)  # whatever it starts, the zygote and the judge stay able to end it
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        os.set_inheritable(data, False)  # other programs that it starts do not get it
        connection = socket.socket(fileno=data)
        if request["scratch"] is not None:
            # Outside of a namespace the limit counts whatever else this user runs.
            limits["processes"] += processes.tasks_of_user(os.getuid())
        confine.set_limits(limits)
        if request["scratch"] is None:
            confine.give_up_rights(allow_memfd=request["has_gpu"])
        else:
            confine.die_with_parent()
            with contextlib.suppress(confine.ConfineError):  # where nothing is isolated this is not the gap
                confine.give_up_rights(allow_memfd=True)
        _move_to(request["scratch"] or "/tmp")
    except BaseException as error:
        os.write(report, f"! {error}".encode()[:1000])
        os._exit(NOT_CONFINED)
    os.write(report, b"ok ")
    for descriptor in (report, nothing, output):
        os.close(descriptor)
    worker.serve(connection, limits["frame"], limits["gpu"])
    os._exit(0)


def _move_to(scratch: str) -> None:
    """The worker's own folder, for all that it and the libraries write: no compiled kernel is another learner's."""
    os.chdir(scratch)
    tempfile.tempdir = None
    for variable, folder in SCRATCH_VARIABLES.items():
        os.environ[variable] = os.path.join(scratch, folder) if folder else scratch


def _end(parent: int, process: int, patience: float) -> dict[str, Any]:
    """Kills a worker, and with it everything in its namespace. status is None if it was alive after `patience` seconds."""
    deadline = time.monotonic() + patience
    status = None
    while True:
        done, code, used = os.wait4(parent, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(code) & 0xFF
            break
        if time.monotonic() >= deadline:
            # The number is still the worker's: its parent, who alone could free it, is alive.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            _, _, used = os.wait4(parent, 0)
            break
        time.sleep(0.005)
    # What a process used is counted for the one that waited for it.
    return {"status": status, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss * 1024}


def _bury() -> None:
    """Takes note of every child that has ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue


if __name__ == "__main__":
    main()
