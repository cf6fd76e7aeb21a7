"""Question 13, second part: minimisers that stop early, cut too much or lose the fault, and right ones."""

from autograder.collect import Collector
from course import differential


# The solution, in which the mistakes below are made; source/04_design.py walks through it.
def minimise(backend, case):
    def fails(candidate):
        return differential.compare(backend, differential.reference, candidate) is not None

    while True:
        for less in differential.smaller(case):
            if fails(less):
                case = less
                break
        else:
            return case


shrink = Collector(minimise)

shrink.edit(
    "returns-the-original",
    "the case comes back as it was given. Cut it, and keep each cut after which it still fails.",
    ("    while True:", "    return case\n    while True:"),
)
shrink.edit(
    "one-cut-only",
    "a single cut is made. After each one that is kept, start again: until no cut is left that still fails.",
    ("                break", "                return case"),
)
shrink.edit(
    "loses-the-fault",
    "every cut is kept, whether the case fails afterwards or not: the smallest case of all is one on which every backend is "
    "right.",
    ("if fails(less):", "if True:"),
)
shrink.edit(
    "returns-what-passes",
    "the question is the wrong way round: the first smaller case on which the backend is right is returned. A failing case is "
    "looked for.",
    ("if fails(less):", "if not fails(less):"),
    ("                case = less\n                break", "                return less"),
)
shrink.edit(
    "last-candidate-returned",
    "what was tried last is returned, and not what failed last: the last try of a search is always one that passes.",
    ("            return case", "            return less"),
)
shrink.edit(
    "whole-requests-only",
    "only steps and requests are left out: lengths, heads and fields stay as large as they were.",
    (
        "for less in differential.smaller(case):",
        "for less in [c for c in differential.smaller(case) if sum(map(len, c.steps)) < sum(map(len, case.steps))]:",
    ),
)
shrink.edit(
    "tokens-only",
    "the measure is wrong: cuts count only where they leave fewer tokens in the cache. Requests, heads, blocks and fields that "
    "are not plain have to go as well.",
    (
        "if fails(less):",
        "if sum(p.seq_len for s in less.steps for p in s) < sum(p.seq_len for s in case.steps for p in s) and fails(less):",
    ),
)
shrink.edit(
    "fields-never-plain",
    "window, layout, fp8, NaN and high block numbers are kept though the case fails without them. What is still odd in a "
    "minimal case is what the fault needs: it names the fault.",
    (
        "if fails(less):",
        "if differential.odd_fields(less) == differential.odd_fields(case) and fails(less):",
    ),
)
shrink.edit(
    "one-pass",
    "all cuts are tried once, in one pass. A cut that failed to keep the fault at first may keep it after another: go on until "
    "a whole pass brings nothing.",
    (
        "    while True:\n        for less in differential.smaller(case):\n            if fails(less):\n                case = less\n"
        "                break\n        else:\n            return case",
        "    less = next(filter(fails, differential.smaller(case)), case)\n"
        "    return next(filter(fails, differential.smaller(less)), less)",
    ),
)


@shrink.right("smallest-first", part="minimise")
def best_first(backend, case):
    """Tries the smallest candidates first."""
    again = True
    while again:
        again = False
        for less in sorted(differential.smaller(case), key=differential.size):
            if differential.compare(backend, differential.reference, less):
                case, again = less, True
                break
    return case


@shrink.right("same-cut-again", part="minimise")
def same_cut_again(backend, case):
    """Goes on in the list of cuts where the last one was kept, and ends after a whole round without one."""
    place, since = 0, 0
    while True:
        cuts = list(differential.smaller(case))
        if since >= len(cuts):
            return case
        place %= len(cuts)
        if differential.compare(backend, differential.reference, cuts[place]) is None:
            place, since = place + 1, since + 1
        else:
            case, since = cuts[place], 0


@shrink.right("halves-of-the-batch-first", part="minimise")
def delta_debugging(backend, case):
    """Delta debugging over the requests, then cuts one by one."""
    from dataclasses import replace

    def fails(candidate):
        return differential.compare(backend, differential.reference, candidate) is not None

    numbers = sorted({part.request for step in case.steps for part in step})
    pieces = 2
    while len(numbers) > 1 and pieces <= len(numbers):
        width = -(-len(numbers) // pieces)
        for start in range(0, len(numbers), width):
            rest = set(numbers[:start] + numbers[start + width :])
            kept = (tuple(part for part in step if part.request in rest) for step in case.steps)
            steps = tuple(step for step in kept if step)
            if steps and fails(less := replace(case, steps=steps)):
                case, numbers, pieces = less, sorted(rest), 2
                break
        else:
            pieces *= 2
    while (less := next(filter(fails, differential.smaller(case)), None)) is not None:
        case = less
    return case
