"""Timing on a GPU, against a GPU and a clock that are made up: what the host needs never counts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from course import gpu_timing


class Machine:
    """A host that launches and a GPU that works off what was launched, on one clock in seconds. No instant is waited for."""

    def __init__(self, host: float, gpu: float) -> None:
        self.host, self.gpu = host, gpu  # of one call
        self.now = self.free_at = 0.0
        self.slept = self.calls = 0

    def _launch(self, host: float, gpu: float) -> None:
        self.now += host
        self.free_at = max(self.free_at, self.now) + gpu

    def call(self) -> int:
        self.calls += 1
        self._launch(self.host, self.gpu)
        return self.calls

    def sleep(self, cycles: int) -> None:
        self.slept += 1
        self._launch(1e-6, cycles / gpu_timing.CYCLES_A_SECOND)

    def clear(self) -> None:
        self._launch(1e-6, gpu_timing.CLEAR_SECONDS)

    def synchronize(self) -> None:
        self.now = max(self.now, self.free_at)

    def torch(self) -> SimpleNamespace:
        machine = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at = max(machine.free_at, machine.now)

            def synchronize(self) -> None:
                machine.synchronize()

            def elapsed_time(self, other: Event) -> float:
                return 1e3 * (other.at - self.at)

        cuda = SimpleNamespace(synchronize=machine.synchronize, _sleep=machine.sleep, Event=Event)
        waste = SimpleNamespace(amax=machine.clear)
        return SimpleNamespace(cuda=cuda, float32=None, zeros=lambda size, dtype, device: waste)


@pytest.mark.parametrize("host", [2e-5, 3e-4, 5e-3])
@pytest.mark.parametrize("gpu", [6e-5, 1e-3, 1.4e-2])
def test_a_run_takes_what_the_gpu_needs_however_slow_the_host(
    host: float, gpu: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(host, gpu)
    monkeypatch.setattr(gpu_timing, "torch", machine.torch())
    monkeypatch.setattr(gpu_timing, "time", SimpleNamespace(perf_counter=lambda: machine.now))
    times, results = gpu_timing.times_us(machine.call, runs=4)
    assert times == pytest.approx([1e6 * gpu] * 4)
    assert len(set(results)) == 4
    assert results[-1] == machine.calls  # the last call was timed
    assert machine.slept in (0, 4)
    if gpu > 3 * host + 2e-4:
        assert machine.slept == 0  # a card at its power limit gets no rest
        busy = gpu * machine.calls
        assert 1.1 * gpu_timing.REST * busy > 4 * gpu_timing.CLEAR_SECONDS
