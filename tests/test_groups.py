"""Tests that share something dear stay in one process: pytest-xdist's groups work with the pytest that is installed."""

import pytest


@pytest.mark.xdist_group("together")
def test_a_group_has_its_name_in_a_tests_id(request: pytest.FixtureRequest) -> None:
    if not hasattr(request.config, "workerinput") or not request.config.getoption("loadgroup", False):
        pytest.skip("needs pytest -n 2 --dist loadgroup")
    assert request.node.nodeid.endswith("@together")
