"""One thread for torch: its operations are tiny here, and threads that wait for each other on a busy machine take a
hundred times as long as the work."""

from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)

KEEP_BYTES = 2**30  # of GPU memory that a process may hold on to between tests: several share a GPU


@pytest.fixture(autouse=True)
def _give_memory_back() -> Iterator[None]:
    yield
    if torch.cuda.is_initialized() and torch.cuda.memory_reserved() > KEEP_BYTES:
        torch.cuda.empty_cache()
