"""The notebook's closed backends: every fault of the list once, right ones beside them, and nothing to read off a name."""

from collections import Counter
from pathlib import Path

import pytest

from course import closed_backends, differential
from course.closed_backends import NAMES, WORKED, closed
from course.closed_backends.engine import Spec, run
from course.closed_backends.faults import FAULTS, VARIANTS
from course.closed_backends.right import RIGHT
from course.closed_backends.sealed import seal, unseal

SPECS = unseal()


def test_there_is_one_backend_for_each_fault_and_four_right_ones_that_differ() -> None:
    kinds = Counter(VARIANTS[SPECS[name].variant].fault for name in NAMES if SPECS[name].variant)
    assert kinds == Counter(FAULTS.keys())
    right = [SPECS[name].base for name in NAMES if not SPECS[name].variant]
    assert len(right) == len(set(right)) == 4
    assert "triton" in right
    assert SPECS.keys() == {*NAMES, *WORKED}


def test_everyday_cases_accuse_nobody() -> None:
    for name in NAMES:
        if SPECS[name].base != "triton":
            for seed in range(3):
                assert (
                    differential.compare(closed(name), differential.reference, differential.everyday(seed))
                    is None
                )


def test_a_name_tells_nothing() -> None:
    backend = closed("kelp")
    assert repr(backend) == "<closed backend kelp>"
    assert not hasattr(backend, "__dict__")
    package = Path(closed_backends.__file__).parent
    text = (package / "sealed.py").read_text() + (package / "__init__.py").read_text()
    assert not [word for word in (*VARIANTS, *RIGHT) if word in text]
    with pytest.raises(ValueError, match="there is no closed backend 'gold'"):
        closed("gold")
    with pytest.raises(TypeError, match="takes a Case, got a dict"):
        backend({})  # type: ignore[arg-type]


def test_sealing_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("course.closed_backends.sealed._SEALED", seal(SPECS))
    assert unseal() == SPECS


def test_results_are_the_callers_own() -> None:
    case = differential.Case.of([5])
    first = closed("opal")(case)
    first[0][0].zero_()
    assert differential.compare(closed("opal"), differential.reference, case) is None


of = differential.Case.of
# For each variant an amount, a case on which it shows and one, nearly the same, on which it does not.
PAIRS: dict[str, tuple[int, differential.Case, differential.Case]] = {
    "extra-slots": (1, of([5]), of([8])),
    "weight-zero": (1, of([5]), of([5], unowned="zeros")),
    "window-shifted": (1, of([9], window=8), of([8], window=8)),
    "window-in-chunks": (-1, of([9], [2], window=8), of([9], window=8)),
    "wrapped-offset": (1, of([4], lowest_block=2**26 + 4), of([4], lowest_block=2**26 - 40)),
    "modulo-heads": (1, of([4], num_heads=4, num_kv_heads=2), of([4], num_heads=2, num_kv_heads=2)),
    "power-of-two-groups": (1, of([4], num_heads=6, num_kv_heads=2), of([4], num_heads=8, num_kv_heads=2)),
    "read-as-nhd": (3, of([4], num_kv_heads=2, layout="HND"), of([4], num_kv_heads=2)),
    "merged-in-base-2": (16, of([17]), of([16])),
    "lse-in-base-2": (1, of([1]), of([0])),
    "first-tokens-only": (32, of([33]), of([32])),
    "splits-of-first": (16, of([16, 17]), of([17, 17])),
    "rows-only-grow": (1, of([4]).then({0: 4}, moved=[0]), of([4]).then({0: 5})),
    "resumed-rows": (
        1,
        of([4, 4]).then({1: 4}).then({0: 4}, moved=[0]),
        of([4, 4]).then({0: 4, 1: 4}).then({0: 4}, moved=[0]),
    ),
    "nan-for-empty": (1, of([0, 4]), of([0, 4], [0, 1])),
    "shifted-rows": (1, of([4, 4], [0, 1]), of([4, 4], [1, 0])),
    "wrong-scales": (
        3,
        of([4], kv_dtype="fp8", k_scale=0.5, v_scale=2.0),
        of([4], kv_dtype="fp8", k_scale=2, v_scale=2),
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_fault_shows_where_it_says_and_only_there(variant: str) -> None:
    amount, shows, hides = PAIRS[variant]
    for base in ("gathered", "splits_backwards"):
        spec = Spec(base, variant, amount)
        assert differential.compare(lambda case: run(spec, case), differential.reference, shows) is not None  # noqa: B023
        assert differential.compare(lambda case: run(spec, case), differential.reference, hides) is None  # noqa: B023
