"""What all tests share: where kernels run, and which tests this machine can run."""

# ruff: noqa: E402  the environment is set before anything reads it

import os
import shutil
import sys
from pathlib import Path

# Before NumPy is loaded: tests run side by side, and threads that wait for each other are slow.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Processes that tests start import the checkout under test too, and find this environment's commands.
ROOT = Path(__file__).resolve().parents[1]
WITHOUT = ROOT / "tests" / "without"  # what takes long to import, and can be done without
for variable, first in (
    ("PYTHONPATH", ROOT),
    ("PYTHONPATH", WITHOUT),
    ("PATH", Path(sys.executable).parent),
):
    os.environ[variable] = os.pathsep.join(filter(None, [str(first), os.environ.get(variable)]))
sys.path.insert(0, str(WITHOUT))

import pytest
import torch

import kernels


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip_gpu = pytest.mark.skip(reason="needs a CUDA GPU, with Triton's interpreter off")
    skip_browser = pytest.mark.skip(reason="needs Chromium")
    no_gpu = kernels.INTERPRET or not torch.cuda.is_available()
    no_browser = None
    for item in items:
        if no_gpu and item.get_closest_marker("gpu"):
            item.add_marker(skip_gpu)
        if item.get_closest_marker("browser"):
            if no_browser is None:
                no_browser = not _has_chromium()
            if no_browser:
                item.add_marker(skip_browser)


def _has_chromium() -> bool:
    """Chromium of this machine, or the one that playwright brought."""
    if any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        return True
    try:
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            return Path(playwright.chromium.executable_path).exists()
    except Exception:  # playwright is missing or broken: either way there is nothing to drive
        return False


@pytest.fixture
def device() -> torch.device:
    """The device that Triton kernels run on here: cuda, or cpu with the interpreter."""
    return kernels.device()


@pytest.fixture(scope="session")
def released_source() -> Path:
    """vLLM 0.22.1's own files. Offline the test is skipped; in CI it fails."""
    from course.vllm import source as vllm_source

    try:
        return vllm_source.root()
    except vllm_source.SourceUnavailable as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
