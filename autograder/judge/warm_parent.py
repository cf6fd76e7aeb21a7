"""The judge's end of a zygote: started in the background, asked over a socket, ended with everything that it started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from autograder.judge import processes


class SandboxLost(RuntimeError):
    """The sandbox stopped answering, or could not start a worker: the machine's fault, not a learner's."""


class WarmParent:
    """A zygote on its way up, or ready after `wait_until_ready`. One that has served its only worker is `spent`."""

    def __init__(
        self,
        command: Callable[[int], list[str]],
        *,
        tasks: int,
        environment: Mapping[str, str] | None = None,
        depth: int,
    ) -> None:
        """command: the command line for the number of its socket. tasks: how many processes and threads it may have below
        it. depth: how many processes lie between the one started and the zygote."""
        self.spent = False
        self._depth = depth
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        line = command(theirs.fileno())
        self._group = processes.make_pids_group(tasks)
        if self._group is not None:
            enter = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
            line = ["/bin/sh", "-c", enter, str(self._group), *line]
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        self.process = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=self._errors,
            stderr=self._errors,
            pass_fds=[theirs.fileno()],
            env=None if environment is None else dict(environment),
            start_new_session=True,
        )
        theirs.close()

    def wait_until_ready(self, seconds: float) -> None:
        """Raises SandboxLost when it cannot start."""
        ready = self._receive(seconds)
        if "error" in ready:
            raise SandboxLost(f"the sandbox's Python could not start:\n{ready['error']}")

    def ask(self, request: dict[str, Any], seconds: float, descriptors: Sequence[int] = ()) -> dict[str, Any]:
        with self._lock:
            try:
                socket.send_fds(self._control, [json.dumps(request).encode()], list(descriptors))
            except OSError as error:
                raise SandboxLost(f"the sandbox is gone: {error}") from error
            return self._receive(seconds)

    def _receive(self, seconds: float) -> dict[str, Any]:
        try:
            self._control.settimeout(seconds)
            data = self._control.recv(1 << 16)
        except TimeoutError as error:
            raise SandboxLost(f"the sandbox did not answer within {seconds:.0f} s") from error
        except OSError as error:
            raise SandboxLost(f"the sandbox is gone: {error}") from error
        if not data:
            self._errors.seek(0)
            said = self._errors.read()[-1000:].decode(errors="replace").strip()
            raise SandboxLost(f"the sandbox ended{': ' + said if said else ''}")
        answer: dict[str, Any] = json.loads(data)
        return answer

    def usage(self, limits_processes: int, limits_memory: int) -> processes.Usage:
        """What the worker and everything that it started use now. Zeros when there is none.

        Above the limit of processes it says nothing about memory: a fork bomb is not looked at twice.
        """
        zygote = self.process.pid
        for _ in range(self._depth):
            below = processes.children(zygote)
            if not below:
                return processes.Usage(0, 0)
            zygote = below[0]
        # The zygote's first child does nothing but wait for the worker.
        waiting, *family = processes.descendants(zygote, limits_processes + 1) or [0]
        if waiting and not processes.is_alive(waiting):
            return processes.Usage(len(family), 0, ended=True)
        if len(family) > limits_processes:
            return processes.Usage(len(family), 0)
        return processes.usage(family, zygote, limits_memory)

    def close(self) -> None:
        """Ends it with everything below it. May be called twice."""
        family = processes.descendants(self.process.pid)
        self._control.close()
        if self.process.poll() is None:
            if self._depth == 0:  # no process-id namespace ends with it
                processes.end_descendants(self.process.pid)
            for pid in (self.process.pid, *family[: self._depth]):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        # bwrap is gone before what it has started, and not every kernel ends a namespace's processes before its first one.
        processes.wait_for_end(family)
        self.process.wait()
        self._errors.close()
        if self._group is not None:
            processes.remove_group(self._group)
