"""The lists that lesson 2 shows: each word is explained, and the tables say the same in a notebook and elsewhere."""

import pytest

from course import candidates
from course.candidates import CONFIGURATIONS, INPUTS, METHODS, MODEL, STATIONS, USUAL, deployment_of
from course.vllm import index as vllm_index


@pytest.mark.parametrize(
    ("words", "table"),
    [(MODEL, candidates.model), (METHODS, candidates.methods), (INPUTS, candidates.inputs)],
)
def test_every_candidate_is_shown_with_its_meaning(words, table):
    shown = table()
    assert [row[0] for row in shown.rows] == list(words)
    for word, meaning in words.items():
        assert meaning
        assert word in repr(shown)
        assert meaning in repr(shown)
        assert f">{word}</code>" in shown._repr_html_()


def test_the_order_gives_nothing_away():
    """Alphabetical: what belongs together does not stand together."""
    for words in (MODEL, METHODS, INPUTS, STATIONS):
        assert list(words) == sorted(words)


def test_the_ten_are_shown_with_everything_in_which_they_differ():
    shown = candidates.configurations()
    differing = {key for one in CONFIGURATIONS.values() for key in one if one[key] != USUAL[key]}
    assert len(shown.rows) == 10
    assert len({tuple(row[1:]) for row in shown.rows}) == 10
    assert len(differing) == len(shown.header) - 1  # the name; nothing else is shown, and nothing is left out
    for configuration in CONFIGURATIONS.values():
        assert configuration.keys() == USUAL.keys()
        assert deployment_of(configuration).head_size == configuration["head_size"]


def test_every_station_is_one_definition_of_vllm_in_the_file_that_is_named():
    names = {}
    for station, meaning in STATIONS.items():
        (symbol,) = vllm_index.find(station)
        assert symbol.path.endswith(station.partition(":")[0])
        names[symbol.name] = meaning
    assert len(names) == len(STATIONS)
    assert all(names.values())
