"""The end of the course: a note from 0 to 2 for each of the thirteen questions, and what to read again, the weakest first.

from course import self_grading

self_grading.questions()              the questions, and where each was taught
self_grading.plan({"q1": 2, ...})     what to read again
"""

from collections.abc import Mapping
from dataclasses import dataclass

from course.deployments import Table

NOTES = {0: "could not answer", 1: "half of it, or with help", 2: "could explain it to somebody"}
_MINUTES = {0: 45, 1: 15}


@dataclass(frozen=True)
class Question:
    """asked: in an interviewer's words. lesson: lesson and part. file: in kernels/. vllm: file, line and what stands there."""

    asked: str
    lesson: str
    file: str
    vllm: str


QUESTIONS: Mapping[str, Question] = {
    "q1": Question(
        "Why does vLLM have many attention backends?",
        "lesson 1, part 2",
        "backends/selector.py",
        "`vllm/platforms/cuda.py:79` (`_get_backend_priorities`)",
    ),
    "q2": Question(
        "Which metadata does a paged kernel need?",
        "lesson 1, part 3",
        "contract.py",
        "`vllm/v1/attention/backend.py:353` (`CommonAttentionMetadata`)",
    ),
    "q3": Question(
        "How can softmax be computed block by block?",
        "lesson 1, part 4",
        "softmax.py",
        "`vllm/v1/attention/ops/merge_attn_states.py:9` (`merge_attn_states`)",
    ),
    "q4": Question(
        "What does the model not know about its kernel?",
        "lesson 2, part 1",
        "backends/forward_context.py",
        "`vllm/forward_context.py:129` (`ForwardContext`)",
    ),
    "q5": Question(
        "What are a backend's three classes for?",
        "lesson 2, part 2",
        "backends/backend.py",
        "`vllm/v1/attention/backend.py:55` (`AttentionBackend`)",
    ),
    "q6": Question(
        "Where is the cache written, where is it read?",
        "lesson 2, part 3",
        "backends/layer.py",
        "`vllm/model_executor/layers/attention/attention.py:691` (`unified_kv_cache_update`)",
    ),
    "q7": Question(
        "What does the selector look at, and how does a user override it?",
        "lesson 2, part 4",
        "backends/selector.py",
        "`vllm/v1/attention/selector.py:52` (`get_attn_backend`)",
    ),
    "q8": Question(
        "Why may blocks lie anywhere, and what must a kernel keep?",
        "lesson 3, part 1",
        "paging.py",
        "`vllm/v1/attention/ops/triton_unified_attention.py:401` (`physical_block_idx`)",
    ),
    "q9": Question(
        "Write paged decode with many heads, and say what it reads.",
        "lesson 3, parts 2 and 3",
        "gqa_decode.py",
        "`vllm/v1/attention/ops/triton_unified_attention.py:179` (`kernel_unified_attention`)",
    ),
    "q10": Question(
        "Make it causal, for chunks, and parallel over one sequence.",
        "lesson 3, parts 4 and 5",
        "prefill.py, merge.py",
        "`vllm/v1/attention/ops/triton_unified_attention.py:646` (`reduce_segments`)",
    ),
    "q11": Question(
        "How do you show that one backend is faster?",
        "lesson 4, part 1",
        "backends/engine.py",
        "`vllm/v1/worker/gpu_model_runner.py:3955` (`execute_model`)",
    ),
    "q12": Question(
        "Bring a new kind of attention into vLLM.",
        "lesson 4, part 2",
        "backends/triton_mla.py",
        "`vllm/model_executor/layers/attention/mla_attention.py:322` (`MLAAttention`)",
    ),
    "q13": Question(
        "A model says garbage with one backend. Find out why.",
        "lesson 4, part 3",
        "backends/conformance/",
        "`vllm/v1/attention/backend.py:271` (`AttentionBackend.validate_configuration`)",
    ),
}


def questions() -> Table:
    """The thirteen, and where to read each again."""
    rows = [[name, one.asked, one.lesson] for name, one in QUESTIONS.items()]
    return Table("The thirteen questions", ["question", "in an interview", "where"], rows)


def plan(notes: Mapping[str, int]) -> Table:
    """What to read again, the weakest first, with a guess at the minutes. notes: for each question 0, 1 or 2 (`NOTES`).

    Raises ValueError for a question that is missing or unknown, and for any other note.
    """
    unknown = [name for name in notes if name not in QUESTIONS]
    missing = [name for name in QUESTIONS if notes.get(name) is None and name not in unknown]
    if unknown:
        raise ValueError(f"notes: expected q1 to q13, got {', '.join(map(str, unknown))}")
    if missing:
        raise ValueError(f"notes: expected a note for each question; missing: {', '.join(missing)}")
    for name, note in notes.items():
        if type(note) is not int or note not in NOTES:
            raise ValueError(f"notes: expected 0, 1 or 2 for {name}, got {note!r}")
    # sorted keeps the lessons' order among equals: later questions rest on earlier ones.
    weak = sorted((name for name in QUESTIONS if notes[name] < 2), key=lambda name: notes[name])
    rows = [
        [name, str(notes[name]), one.lesson, f"kernels/{one.file}", one.vllm.replace("`", "")]
        for name in weak
        for one in [QUESTIONS[name]]
    ]
    total, minutes = sum(notes.values()), sum(_MINUTES[notes[name]] for name in weak)
    advice = (
        f"about {minutes} minutes, the weakest first"
        if weak
        else "nothing to read again: explain it to somebody"
    )
    header = ["question", "note", "read again", "in the course", "in vLLM 0.22.1"]
    return Table(f"{total} of {2 * len(QUESTIONS)}: {advice}", header, rows)
