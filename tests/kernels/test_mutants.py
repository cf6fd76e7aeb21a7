"""The wrong kernels of mutants.py: that they are what they say, and a few of them run (all: kill_table.py)."""

import pytest

from autograder import registry
from tests.kernels import kill_table
from tests.kernels.mutants import MUTANTS, Mutant

# Misconceptions that no line of a kernel can have, and why.
NOT_OF_KERNELS = {
    "state-changed-in-place": "a kernel's state lives in registers; the caller's tensors are held by test_inputs_are_not_touched",
    "slots-of-the-whole-sequence": "the caller makes slot_mapping",
    "padding-in-front": "the caller makes the block table",
    "sorted-block-table": "the caller makes the block table",
    "query-start-loc-without-zero": "the caller makes query_start_loc; contract.py refuses it",
    "query-start-loc-without-total": "the caller makes query_start_loc; contract.py refuses it",
    "query-lens-for-query-start-loc": "the caller makes query_start_loc; contract.py refuses it",
    "everything-int64": "contract.py refuses it",
    "pads-the-callers-lists": "a kernel takes tensors",
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_differs_in_one_place_and_is_still_python(mutant: Mutant):
    source = (kill_table.ROOT / "kernels" / mutant.file).read_text()
    changed = mutant.apply(source)
    assert changed != source
    compile(changed, mutant.file, "exec")
    for test in mutant.tests:
        assert (kill_table.ROOT / test.partition("::")[0]).exists()


def test_names_differ():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_every_misconception_about_attention_is_a_mutant_or_cannot_be():
    known = {name for mutant in MUTANTS for name in mutant.misconceptions}
    wanted = {
        misconception.name
        for check in ("attend", "online_softmax_update", "merge_states")
        for misconception in registry.get(check).misconceptions
    }
    assert wanted - known == NOT_OF_KERNELS.keys()


def test_a_mutant_that_is_no_longer_there_is_named():
    gone = Mutant("gone", "softmax.py", "update_softmax", "no such text", "", ())
    with pytest.raises(
        ValueError, match="mutant 'gone': expected once in update_softmax of kernels/softmax.py, found 0"
    ):
        gone.apply("def update_softmax(\n    pass\n")


def test_a_table_of_a_few(capsys, monkeypatch):
    """One that is caught at once, one that only the tests of merging catch, and one that changes nothing."""
    merge = "tests/kernels/test_merge.py"
    same = Mutant(
        "changes nothing",
        "merge.py",
        "_merge_attn_states_kernel",
        "in_head = dim",
        "in_head = 0 + dim",
        (merge,),
    )
    few = [one for one in MUTANTS if one.name in ("weights swapped", "two empty states")]
    monkeypatch.setattr(kill_table, "MUTANTS", (*few, same))
    assert kill_table.main(["--jobs", "1"]) == 1
    rows = capsys.readouterr().out.splitlines()
    assert rows[1].endswith("test_merge.py::test_empty_splits_may_hold_nan")
    assert rows[2].endswith("test_merge.py::test_merge_is_right")
    assert rows[3].endswith("NOTHING: it survives")
    assert rows[-1] == "2 of 3 mutants killed."


def test_tests_that_fail_already_kill_nothing(capsys, monkeypatch):
    monkeypatch.setattr(
        kill_table.Laboratory, "run", lambda *arguments, **more: ["test_x.py::test_always_fails"]
    )
    monkeypatch.setattr(kill_table, "MUTANTS", MUTANTS[:1])
    assert kill_table.main(["--jobs", "1"]) == 2
    assert "fail on the kernels as they are: test_x.py::test_always_fails" in capsys.readouterr().err


def test_a_mutant_that_does_not_load_shows_nothing():
    assert kill_table.Outcome(MUTANTS[0], [kill_table.NOT_LOADED]).survived
    assert not kill_table.Outcome(MUTANTS[0], [kill_table.PROCESS_LOST]).survived


def test_unknown_words_are_refused(capsys):
    with pytest.raises(SystemExit):
        kill_table.main(["no such mutant"])
    assert "no mutant is named" in capsys.readouterr().err
