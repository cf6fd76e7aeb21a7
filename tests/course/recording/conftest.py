"""Recording needs Triton's interpreter: on a GPU these tests are skipped, but for those that say so."""

import pytest

import kernels


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = __file__.rsplit("/", 1)[0]
    for item in items:
        anywhere = item.get_closest_marker("gpu") or "on_a_gpu" in item.name
        if str(item.path).startswith(here) and not kernels.INTERPRET and not anywhere:
            item.add_marker(pytest.mark.skip(reason="needs Triton's interpreter"))
