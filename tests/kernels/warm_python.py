"""Run code in fresh processes that have torch loaded and nothing of ours: loading torch takes longer than such a test.

One process loads torch and waits; each piece of code runs in a copy of it (fork), with the environment it asks for.
"""

import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path


class WarmPython:
    """run(code, environment) is what `python -c code` prints, output and errors, with that environment and sys.path."""

    def __init__(self):
        command = [sys.executable, __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, code, environment):
        with tempfile.NamedTemporaryFile("r") as output:
            request = {"code": code, "environment": environment, "path": sys.path, "output": output.name}
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            assert self._process.stdout.readline() == "done\n"
            return Path(output.name).read_text().strip()

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _run_here(request):
    """In the copy."""
    written = os.open(request["output"], os.O_WRONLY)
    os.dup2(written, 1)
    os.dup2(written, 2)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[:] = request["path"]
    try:
        exec(request["code"], {"__name__": "__main__"})
    except BaseException:
        sys.stdout.flush()  # what was printed comes before the error, also where stdout is held back
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _serve():
    import torch

    torch.zeros(1)  # loaded, and none of its threads started
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _run_here(json.loads(line))
        os.waitpid(child, 0)
        print("done", flush=True)


if __name__ == "__main__":
    _serve()
