"""Question 3, first part: folding tiles into a state must give the softmax over all of them."""

from __future__ import annotations

from autograder.checks import softmax_states
from autograder.failure import Problem
from autograder.guard import unchanged
from autograder.misconceptions import online_softmax
from autograder.registry import Answer, Check, Output
from autograder.suite import Case, Suite

PARTS = ("online_softmax_update", "finalize")
SOLUTION = {name: getattr(online_softmax, name) for name in PARTS}


def cases(suite: Suite) -> list[Case]:
    """Lists of tiles; `softmax_states.draw` says what is drawn."""
    draw = softmax_states.Draw(suite)
    chosen = [
        draw.tiles("one tile", (3,), [5]),
        draw.tiles("three tiles", (4,), [4, 4, 4]),
        draw.tiles("no batch dimension", (), [3, 2]),
        draw.tiles("two batch dimensions, uneven tiles", (2, 3), [7, 1, 4]),
        draw.tiles("the maximum grows from tile to tile", (4,), [4, 4, 4], offsets=[0.0, 6.0, 12.0]),
        draw.tiles("the maximum falls from tile to tile", (4,), [4, 4, 4], offsets=[12.0, 6.0, 0.0]),
        draw.tiles("large scores", (4,), [5, 5], offsets=[300.0, 310.0], spread=8.0),
        draw.tiles("large scores first, then small ones", (4,), [4, 4], offsets=[200.0, -200.0]),
        draw.tiles("rows far apart", (4,), [4, 4], row_step=300.0),
        draw.tiles("some scores masked", (4,), [4, 4], masked=0.4),
        draw.tiles("the first tile masked whole", (3,), [4, 4], masked_tiles=[0]),
        draw.tiles("a tile in the middle masked whole", (3,), [4, 3, 4], masked_tiles=[1]),
        draw.tiles("everything masked", (2,), [3, 3], masked_tiles=[0, 1]),
        draw.tiles("very negative scores", (3,), [4, 4], offsets=[-400.0, -410.0]),
    ]
    if suite.hidden:
        chosen += [draw.random_tiles(f"random tiles {i + 1}") for i in range(6)]
    return chosen


def run(answer: Answer, case: Case) -> Output:
    update, finalize = answer["online_softmax_update"], answer["finalize"]
    state = softmax_states.empty(case)
    for scores, values in softmax_states.copied_tiles(case):
        with unchanged(state=state, scores=scores, values=values):
            new_state = update(state, scores, values)
        state = softmax_states.require_state(new_state, state, "online_softmax_update")
    with unchanged(state=state):
        return {"output": finalize(state)}


def inspect(output: Output, case: Case) -> Problem | None:
    return softmax_states.output_problem(output["output"], case)


CHECK = Check(
    name="online_softmax_update",
    grade_id="q3-update",
    parts=PARTS,
    cases=cases,
    run=run,
    inspect=inspect,
    solution=SOLUTION,
    misconceptions=online_softmax.update.misconceptions,
    right_variants=online_softmax.RIGHT_VARIANTS,
    hints=(
        "Write the two-pass softmax first: m = max of all scores, then sums of exp(score - m). What of it could be "
        "kept while the scores arrive in tiles, and what changes when a later tile holds a larger maximum?",
        "When the maximum goes from m_old to m_new, every term exp(s - m_old) must become exp(s - m_new). That is one "
        "factor for all of them: exp(m_old - m_new). l is a sum of such terms, and so is each element of acc.",
        "m_new = maximum(m, max of the tile); alpha = exp(m - m_new); p = exp(scores - m_new); "
        "l_new = l * alpha + sum(p); acc_new = acc * alpha + p @ values. Where m_new is still -inf (nothing but masked "
        "scores so far), subtract 0 instead of m_new. finalize: acc / l, and zeros where l is 0.",
    ),
)
