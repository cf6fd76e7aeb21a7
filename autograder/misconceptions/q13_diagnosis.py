"""Question 13, third part: diagnoses that stop at the first likeness. They name faults, not backends: who is what is sealed."""

from autograder.registry import Misconception, RightVariant
from course.closed_backends import NAMES
from course.closed_backends.faults import RIGHT, VARIANTS
from course.closed_backends.sealed import unseal

_SPECS = unseal()
TRUTH = {name: VARIANTS[_SPECS[name].variant].fault if _SPECS[name].variant else RIGHT for name in NAMES}


def _mistaken(**instead: str) -> dict[str, dict[str, str]]:
    """The truth with some faults taken for others."""
    wrong = {old.replace("_", "-"): new for old, new in instead.items()}
    return {"q13_diagnosis": {name: wrong.get(fault, fault) for name, fault in TRUTH.items()}}


MISCONCEPTIONS = (
    Misconception(
        "everything-is-right",
        "the backends were tried on everyday inputs only, and all are called right.",
        {"q13_diagnosis": dict.fromkeys(TRUTH, RIGHT)},
    ),
    Misconception(
        "everything-is-suspect",
        "backends that round or add up in another order are called faulty. Hold the difference against the budget.",
        {"q13_diagnosis": {name: "lse-base" if fault == RIGHT else fault for name, fault in TRUTH.items()}},
    ),
    Misconception(
        "long-means-cap",
        "whatever fails on long requests is put down to a cap on the splits. Where the lse is right and the output is wrong, "
        "nothing is left out: the parts are weighted wrongly.",
        _mistaken(lse_base="split-cap"),
    ),
    Misconception(
        "cap-means-merge",
        "a backend that leaves out part of a long request is said to merge it wrongly. There the lse is too small as well.",
        _mistaken(split_cap="lse-base"),
    ),
    Misconception(
        "nan-means-tail",
        "whatever gives NaN is put down to a stale tail. NaN only says that something was read that nobody owns; a wrong row, a "
        "wrong block and a wrong slot all lead there.",
        _mistaken(offset_32_bit="stale-tail", stale_block_table="stale-tail"),
    ),
    Misconception(
        "one-too-many-means-tail",
        "a window that is one token too long is called a stale tail. That token is the request's own, and old.",
        _mistaken(window="stale-tail"),
    ),
    Misconception(
        "several-kv-heads-mean-gqa-map",
        "what needs several kv heads is put down to the head map, though it needs the layout HND as well.",
        _mistaken(layout="gqa-map"),
    ),
    Misconception(
        "groups-mean-layout",
        "a wrong head map is called a wrong layout, though it shows in NHD.",
        _mistaken(gqa_map="layout"),
    ),
    Misconception(
        "another-row-means-preemption",
        "a request that reads another's blocks is put down to a row that was not renewed, though one step is enough: an empty "
        "neighbour moves the rows.",
        _mistaken(zero_length="stale-block-table"),
    ),
)
RIGHT_VARIANTS = (
    RightVariant(
        "spelled-otherwise",
        {
            "q13_diagnosis": {
                name: fault.upper().replace("-", "_" if i % 2 else " ")
                for i, (name, fault) in enumerate(TRUTH.items())
            }
        },
    ),
)
