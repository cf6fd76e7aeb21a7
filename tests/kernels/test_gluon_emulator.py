"""The emulation leaves nothing behind: the same process may run the real program next, on a machine with a GPU."""

import sys

import pytest

import kernels
from kernels import runtime
from tests.kernels.gluon_emulator import emulate

NAME = "hopper_decode_kernel"
PATH = f"kernels.{NAME}"


@pytest.mark.skipif(not runtime.INTERPRET, reason="emulates nothing on a machine with a GPU")
@pytest.mark.parametrize("loaded", [False, True])
def test_nothing_of_it_stays(loaded, monkeypatch):
    real = object()
    monkeypatch.delitem(sys.modules, PATH, raising=False)
    monkeypatch.delattr(kernels, NAME, raising=False)
    if loaded:
        monkeypatch.setitem(sys.modules, PATH, real)
        monkeypatch.setattr(kernels, NAME, real, raising=False)
    with pytest.MonkeyPatch.context() as patched:
        (module,) = emulate(patched, NAME)
        assert sys.modules[PATH] is module is getattr(kernels, NAME)
    assert sys.modules.get(PATH) is (real if loaded else None)
    assert getattr(kernels, NAME, None) is (real if loaded else None)
