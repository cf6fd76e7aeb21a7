"""Tests that share something dear stay in one process: pytest-xdist's groups work with the pytest that is installed."""

import pytest


@pytest.mark.xdist_group("together")
def test_a_group_has_its_name_in_a_tests_id(request: pytest.FixtureRequest) -> None:
    if not hasattr(request.config, "workerinput") or not request.config.getoption("loadgroup", False):
        pytest.skip("needs pytest -n 2 --dist loadgroup")
    assert request.node.nodeid.endswith("@together")


def test_the_judges_tests_are_one_group(request: pytest.FixtureRequest) -> None:
    if not hasattr(request.config, "workerinput") or not request.config.getoption("loadgroup", False):
        pytest.skip("needs pytest -n 2 --dist loadgroup")
    names = [item.nodeid for item in request.session.items if "autograder/judge/" in item.nodeid]
    if not names:
        pytest.skip("needs the judge's tests collected beside it")
    assert [name for name in names if not name.endswith("@judge")] == []
