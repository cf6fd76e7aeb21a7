"""A known mistake does no harm to the process that asks about it, and comes to the same as here."""

import signal
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from autograder import cuda_fault, registry
from autograder.examine import examine
from autograder.judge.faults import Fault
from autograder.known_mistakes import KnownMistakes
from autograder.mistake_process import ATTEMPTS
from autograder.outcome import Outcome, outcome_of
from autograder.registry import Check, Output
from autograder.suite import Case, Suite, open_suite
from tests.autograder.harmful_check import CHECK, FIND, FULL, ILLEGAL

VISIBLE = open_suite("visible")
MISTAKES = {mistake.name: mistake for mistake in CHECK.misconceptions}
BROKEN = "your kernel read or wrote outside its tensors, which broke the GPU's state: an illegal memory access was encountered"


def _one_off() -> dict[str, int]:
    return {"number": 2}


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[KnownMistakes]:
    made = KnownMistakes(elsewhere=True)
    yield made
    made.close()


@pytest.fixture(scope="module")
def harmful() -> Iterator[KnownMistakes]:
    """For the check that does harm; a hanging mistake has three seconds."""
    made = KnownMistakes(elsewhere=True, find=FIND, seconds=3)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("name", "some", "cases"),
    [
        ("relocate_blocks", None, None),
        ("build_metadata", None, None),
        (
            "paged_online_attention_triton",
            {"offsets-of-32-bits", "block-size-16", "kv-head-modulo"},
            {0, 6, 12},
        ),
    ],
)
def test_elsewhere_a_mistake_comes_to_the_same_as_here(
    elsewhere: KnownMistakes, name: str, some: set[str] | None, cases: set[int] | None
) -> None:
    check, suite = registry.get(name), Suite("hidden", 5)
    drawn = check.cases(suite)
    here = KnownMistakes(elsewhere=False)
    told_apart = 0
    for mistake in check.misconceptions:
        for index in range(len(drawn)):
            if (some is None or mistake.name in some) and (cases is None or index in cases):
                one = here.outcome(check, mistake, suite, check.cases(suite), index)
                other = elsewhere.outcome(check, mistake, suite, drawn, index)
                _assert_same(check, suite, index, one, other)
                told_apart += one.output is None or check.inspect(one.output, drawn[index]) is not None
    assert told_apart > 2
    assert elsewhere.process.started == 1


def _assert_same(check: Check, suite: Suite, index: int, one: Outcome, other: Outcome) -> None:
    assert (one.problem, one.obstacle) == (other.problem, other.obstacle)
    assert (one.output is None) == (other.output is None)
    if one.output is not None and other.output is not None:
        case = check.cases(suite)[index]
        assert check.same(one.output, other.output, case)
        assert check.inspect(one.output, case) == check.inspect(other.output, case)


def test_a_mistake_that_ends_or_blocks_its_process_costs_only_itself(harmful: KnownMistakes) -> None:
    verdict = examine(CHECK, {"number": _one_off}, VISIBLE, harmful)
    assert (verdict.misconception, verdict.exact) == ("is one off", True)
    # One at first, and one for each that "exits", "crashes" and "hangs" took with it.
    assert harmful.process.started == 4


def test_what_a_mistake_came_to_is_remembered_whatever_it_was(harmful: KnownMistakes) -> None:
    cases = CHECK.cases(VISIBLE)
    first = {name: harmful.outcome(CHECK, MISTAKES[name], VISIBLE, cases, 0) for name in MISTAKES}
    started, repeated = harmful.process.started, harmful.repeated
    assert {name: harmful.outcome(CHECK, MISTAKES[name], VISIBLE, cases, 0) for name in MISTAKES} == first
    assert (harmful.process.started, harmful.repeated) == (started, repeated + len(MISTAKES))
    other_case = harmful.outcome(CHECK, MISTAKES["draws"], VISIBLE, cases, 1)
    other_seed = harmful.outcome(CHECK, MISTAKES["draws"], Suite("hidden", 1), cases, 0)
    assert first["draws"] not in (other_case, other_seed)


def test_an_interrupted_question_leaves_no_answer_for_the_next(harmful: KnownMistakes) -> None:
    suite, cases = Suite("hidden", 7), CHECK.cases(VISIBLE)
    learner = threading.get_ident()
    timer = threading.Timer(0.5, lambda: signal.pthread_kill(learner, signal.SIGINT))
    harmful.outcome(CHECK, MISTAKES["is one off"], suite, cases, 1)  # warm
    # A shell that starts the tests in the background has SIGINT ignored, in them too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            harmful.outcome(CHECK, MISTAKES["hangs"], suite, cases, 0)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert harmful.outcome(CHECK, MISTAKES["is one off"], suite, cases, 0).output == {"number": 2}


@pytest.mark.parametrize("kept", [False, True])
def test_here_it_is_remembered_where_no_answer_can_have_changed_the_case(kept: bool) -> None:
    here = KnownMistakes(elsewhere=False, find=FIND, cases_are_kept=kept)
    cases = CHECK.cases(VISIBLE)
    one, other = (here.outcome(CHECK, MISTAKES["draws"], VISIBLE, cases, 0) for _ in range(2))
    assert (one == other) is kept


def test_a_check_that_no_other_process_finds_is_run_here_and_not_remembered() -> None:
    own = replace(CHECK, cases=lambda suite: CHECK.cases(suite))
    mistakes = KnownMistakes(elsewhere=True, cases_are_kept=True, find=FIND)
    one, other = (mistakes.outcome(own, MISTAKES["draws"], VISIBLE, own.cases(VISIBLE), 0) for _ in range(2))
    assert one.output is not None
    assert one != other
    assert (mistakes.process.started, mistakes.repeated) == (0, 0)


def test_where_the_machine_has_no_room_the_verdict_does_without_and_nothing_is_remembered() -> None:
    full, cases = Suite("hidden", FULL), CHECK.cases(VISIBLE)
    mistakes = KnownMistakes(elsewhere=True, find=FIND)
    for _ in range(ATTEMPTS - 1):
        assert mistakes.outcome(CHECK, MISTAKES["is one off"], full, cases, 0) == Outcome()
    assert mistakes.outcome(CHECK, MISTAKES["is one off"], VISIBLE, cases, 0).output == {"number": 2}
    for _ in range(ATTEMPTS):
        assert mistakes.outcome(CHECK, MISTAKES["is one off"], full, cases, 0) == Outcome()
    # After so many in a row it is not tried again.
    assert mistakes.outcome(CHECK, MISTAKES["draws"], VISIBLE, cases, 0) == Outcome()
    assert (mistakes.process.started, mistakes.repeated) == (1, 0)
    mistakes.close()


class Gpu:
    """What torch says of a GPU that this process uses, until a kernel goes wrong on it."""

    broken = False

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "synchronize", self.synchronize)

    def synchronize(self) -> None:
        if self.broken:
            raise torch.AcceleratorError(f"{ILLEGAL}\nCUDA kernel errors might be reported later.")

    def launch(self) -> dict[str, int]:
        """A kernel's launch returns before it goes wrong."""
        self.broken = True
        return {"number": 1}


def test_beside_the_learner_a_broken_gpu_is_told_in_a_sentence_and_with_its_cause(
    monkeypatch: pytest.MonkeyPatch, harmful: KnownMistakes
) -> None:
    gpu = Gpu(monkeypatch)
    calls = iter([_one_off, gpu.launch])

    def inspect(output: Output, case: Case) -> None:
        raise AssertionError("nothing on the GPU can be read any more")

    check = replace(CHECK, inspect=inspect, misconceptions=(MISTAKES["breaks the GPU"], MISTAKES["draws"]))
    verdict = examine(check, {"number": lambda: next(calls)()}, VISIBLE, harmful)
    assert not verdict.passed
    said = verdict.message().splitlines()
    assert said[0] == f"✗ harmful: {BROKEN}. {cuda_fault.LOST}."
    assert "restart the notebook's kernel" in said[0]
    assert said[1].startswith("  In the case: the second case.")
    assert "  On this case, this is what you get when it breaks the GPU." in said
    again = examine(check, {"number": _one_off}, VISIBLE, harmful)
    assert again.message().splitlines()[0] == (
        f"✗ harmful: something that ran before broke the GPU's state. {cuda_fault.LOST}."
    )
    assert again.misconception is None


def test_in_a_process_that_lost_the_gpu_no_mistake_is_like_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    Gpu(monkeypatch).launch()
    here = KnownMistakes(elsewhere=False, find=FIND)
    outcome = here.outcome(CHECK, MISTAKES["breaks the GPU"], VISIBLE, CHECK.cases(VISIBLE), 0)
    assert outcome == Outcome()


def test_one_mistake_has_one_name_in_torchs_words_in_tritons_and_in_the_judge() -> None:
    def fails(error: Exception) -> Outcome:
        def number() -> None:
            raise error

        return outcome_of(CHECK, {"number": number}, CHECK.cases(VISIBLE)[0])

    errors = [
        torch.AcceleratorError(f"{ILLEGAL}\nCUDA kernel errors might be reported later."),
        RuntimeError(ILLEGAL.replace("CUDA error", "Triton Error [CUDA]")),
        Fault("crashed", str(cuda_fault.sentence(["AcceleratorError", "RuntimeError"], f"{ILLEGAL}\nmore"))),
    ]
    assert {fails(error).obstacle for error in errors} == {BROKEN}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            torch.AcceleratorError("CUDA error: device-side assert triggered\nmore"),
            "an index is outside its tensor",
        ),
        (RuntimeError("Triton Error [CUDA]: unspecified launch failure"), "your code went wrong on the GPU"),
        (torch.AcceleratorError("CUDA error: misaligned address"), "between two elements"),
        (RuntimeError("Triton Error [CUDA]: invalid argument"), None),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 6.00 GiB."), None),
        (ValueError("block_size: expected 16"), None),
    ],
)
def test_what_breaks_the_gpus_state_is_known_by_its_words(error: Exception, expected: str | None) -> None:
    said = cuda_fault.sentence_about(error)
    assert (said is None) == (expected is None)
    assert (expected or "") in (said or "")
