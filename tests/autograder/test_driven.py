"""A backend behind plain data behaves as the backend itself, and its place, its claims and its helpers are seen."""

from pathlib import Path
from types import ModuleType

import nbformat
import pytest

from autograder import CheckFailed, check, driven, registry
from autograder.checks.latent_cases import GROUPS
from autograder.class_collector import ClassCollector, text_of_class
from autograder.examine import examine
from autograder.failure import AnswerProblem
from autograder.grading.sample_answers import samples, text_of
from autograder.grading.sample_class import answer
from autograder.lesson import read_lesson
from autograder.misconceptions.latent_backend import SHAPE, latent
from autograder.outcome import outcome_of
from autograder.suite import Suite, open_suite
from kernels import runtime
from kernels.backends import conformance
from tests.kernels.backends.faulty import TorchMLA

ROOT = Path(__file__).resolve().parents[2]
CHECK = registry.get("latent_backend")
PARTS = driven.PARTS
PER_TOKEN = next(v.parts for v in CHECK.right_variants if v.name == "a-request-for-each-token")


def answer_of(backend):
    return dict(zip(PARTS, (backend, backend.get_impl_cls(), backend.get_builder_cls()), strict=True))


def cases_of(*labels, suite=None):
    return [case for case in CHECK.cases(suite or open_suite("visible")) if case.label in labels]


def test_a_driven_backend_gives_the_suite_what_the_backend_gives():
    """One that knows nothing of being driven, fp8 and the rest included."""
    stand_in = driven.driven(answer_of(TorchMLA))
    device = runtime.device()
    results = [conformance.run(backend, device=device) for backend in (stand_in, TorchMLA)]
    assert [(r.name, r.passed) for r in results[0]] == [(r.name, r.passed) for r in results[1]]
    assert sum(r.passed is True for r in results[0]) == 23
    assert stand_in.outputs


@pytest.mark.parametrize(
    ("do", "expected"), [("inherit", "inherits forward_mqa"), ("super", "hands its work to")]
)
def test_our_own_impl_under_another_name_is_told_apart(do, expected):
    from kernels.backends.triton_mla import TritonMLABackend, TritonMLAImpl, TritonMLAMetadataBuilder

    class Inherits(TritonMLAImpl):
        pass

    class Super(TritonMLAImpl):
        def forward_mqa(self, *arguments):
            return super().forward_mqa(*arguments)

    impl = {"inherit": Inherits, "super": Super}[do]

    class Backend(TritonMLABackend):
        get_name = staticmethod(lambda: "CUSTOM")
        get_impl_cls = staticmethod(lambda: impl)
        get_builder_cls = staticmethod(lambda: TritonMLAMetadataBuilder)

    with pytest.raises(AnswerProblem, match=expected):
        CHECK.run(
            dict(zip(PARTS, (Backend, impl, TritonMLAMetadataBuilder), strict=True)),
            cases_of("first prompts")[0],
        )
    # The class is as it was.
    assert TritonMLAImpl.forward_mqa.__qualname__ == "TritonMLAImpl.forward_mqa"


def test_the_kernel_may_be_called():
    """latent_decode in forward_mqa: a decode's case here, all of them on a GPU."""
    text = text_of_class(PER_TOKEN["LatentImpl"]).replace("reference.latent_decode", "kernels.latent_decode")
    namespace = {"__name__": "answer"}
    exec("import kernels\n" + text_of_class(PER_TOKEN["LatentMetadataBuilder"]) + "\n" + text, namespace)
    exec(text_of_class(PER_TOKEN["LatentBackend"]), namespace)
    answer = {name: namespace[name] for name in PARTS}
    labels = [case.label for case in CHECK.cases(open_suite("visible"))]
    for case in cases_of(*(labels if runtime.device().type == "cuda" else ["first prompts"])):
        assert CHECK.inspect(CHECK.run(answer, case), case) is None


@pytest.mark.parametrize(
    ("part", "made", "expected"),
    [
        ("LatentImpl", dict, "LatentImpl must be a class derived from MLAAttentionImpl"),
        ("LatentBackend", len, "LatentBackend must be a class derived from AttentionBackend"),
        (
            "LatentMetadataBuilder",
            PER_TOKEN["LatentMetadataBuilder"],
            "get_builder_cls must return LatentMetadataBuilder",
        ),
    ],
)
def test_what_is_no_backend_is_told_so(part, made, expected):
    with pytest.raises(AnswerProblem, match=expected):
        driven.driven({**CHECK.solution, part: made})


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("return [num_blocks, block_size, head_size]", "must return a tuple"),
        ("return (num_blocks, block_size, head_size, 10**6)", "far more room"),
        ("return (num_blocks, block_size, 0)", "positive whole numbers"),
        ("return (num_blocks, block_size, float(head_size))", "positive whole numbers"),
    ],
)
def test_a_shape_that_is_none_is_refused_before_memory_is_taken(shape, expected):
    collector = ClassCollector(_solution(), PARTS)
    collector.right("other", (SHAPE, shape))
    verdict = examine(CHECK, collector.right_variants[0].parts, open_suite("visible"))
    assert verdict.num_passed == 0 or verdict.failures[0].case_label == "the shape of the cache"
    assert expected in verdict.message()


def test_who_hands_over_too_little_is_told_what_is_wanted():
    with pytest.raises(CheckFailed, match=r"takes the 3 classes \(LatentBackend, LatentImpl"):
        check("latent_backend", (CHECK.solution["LatentBackend"],))


def test_an_error_inside_of_ours_is_not_called_the_learners_line():
    """It shows the last line of theirs that the error passed through, and here there is none."""
    collector = ClassCollector(_solution(), PARTS)
    collector.right("raises", ("return True", "raise NotImplementedError"))
    case = cases_of("first prompts")[0]
    outcome = outcome_of(CHECK, collector.right_variants[0].parts, case)
    assert outcome.not_implemented
    assert outcome.problem.detail == "in is_mla, line 29: raise NotImplementedError"


def test_hidden_cases_are_others():
    """Other sizes, numbers and tokens, as many cases; and the same again for the same seed."""
    one, two, again = (CHECK.cases(Suite("hidden", seed)) for seed in (1, 2, 1))
    visible = CHECK.cases(open_suite("visible"))
    assert [case.label for case in one] == [case.label for case in two] == [case.label for case in visible]
    assert [case.inputs for case in one] == [case.inputs for case in again]
    for a, b in ((one, two), (one, visible)):
        assert all(x.inputs != y.inputs for x, y in zip(a, b, strict=True))


def test_every_group_is_about_checks_of_the_suite_and_each_is_there_but_options():
    named = {check.__name__ for group in GROUPS for check in group.checks}
    assert set(conformance.CHECKS) - named == {"sliding_window", "softcap_and_alibi", "sinks", "cuda_graph"}


def test_classes_have_a_text_that_makes_them_again():
    made = latent.solution["LatentMetadataBuilder"]
    namespace = {"__name__": "again"}
    exec(text_of("LatentMetadataBuilder", made), namespace)
    assert namespace["LatentMetadataBuilder"].__mro__[1] is made.__mro__[1]
    assert "LatentMetadata" in namespace
    assert text_of_class(dict) is text_of_class(3) is None


def test_an_edit_must_fit():
    with pytest.raises(ValueError, match="expected exactly once in the solution, got 0 times"):
        ClassCollector(_solution(), PARTS).edit("no", "no", ("not there", ""))


def _solution() -> ModuleType:
    from autograder.misconceptions import latent_solution

    return latent_solution


def test_the_table_of_reuse_fits_each_of_the_backends():
    """What an answer says of itself is right, whatever else is wrong with it; one sample learner is made of each."""
    reuse = registry.get("q12_reuse")
    for known in (*CHECK.misconceptions, *CHECK.right_variants):
        verdict = examine(reuse, reuse.complete(known.parts), open_suite("visible"))
        assert verdict.passed or known.name == "no-mla", (known.name, verdict.message())


def test_sample_learners_are_made_of_all_of_them():
    lesson = read_lesson(ROOT / "source" / "04_design.py")
    made = samples(["q12-backend", "q12-reuse"])
    assert len(made) >= len(CHECK.misconceptions) + len(CHECK.right_variants)
    for sample in made[:: len(made) // 4]:
        notebook = answer(sample, nbformat.from_dict(lesson))
        for cell in notebook.cells:
            if cell.id in ("q12-backend-code", "q12-builder-code", "q12-impl-code", "q12-reuse-code"):
                compile(cell.source, cell.id, "exec")
                assert "dataclass\n" not in cell.source or "from dataclasses import dataclass" in cell.source
