"""Question 8, second part: testers of attention functions, too lenient or too strict, and right ones."""

import torch

from autograder.collect import Collector
from kernels import reference


# The solution, in which the mistakes below are made; source/03_build.py walks through it.
def find_contract_breach(attend):
    def trial(table, seq_lens, seed):
        generator = torch.Generator().manual_seed(seed)
        key_cache = torch.full((16, 4, 1, 8), torch.nan)
        value_cache = torch.full((16, 4, 1, 8), torch.nan)
        for row, seq_len in zip(table, seq_lens):
            for position in range(seq_len):
                at = row[position // 4], position % 4
                key_cache[at] = torch.randn(1, 8, generator=generator)
                value_cache[at] = torch.randn(1, 8, generator=generator)
        query = torch.randn(len(seq_lens), 2, 8, generator=generator)
        block_table = torch.tensor(table, dtype=torch.int32)
        arguments = (query, key_cache, value_cache, block_table, torch.tensor(seq_lens, dtype=torch.int32))
        expected = reference.paged_decode(*arguments, 0.5)
        given = [argument.clone() for argument in arguments]
        output = attend(*given, 0.5)
        unchanged = all(torch.equal(a.nan_to_num(7.5), b.nan_to_num(7.5)) for a, b in zip(arguments, given))
        return torch.allclose(output, expected, atol=1e-4), unchanged

    trials = [
        ("content", [[0, 1]], [8], 1),
        ("content", [[0, 1]], [8], 2),
        ("tail", [[0, 1]], [6], 3),
        ("scatter", [[2, 5, 11]], [12], 4),
        ("order", [[9, 7, 3]], [10], 5),
        ("ownership", [[4, 8, 14], [6, 1, 15]], [12, 3], 6),
    ]
    for clause, table, seq_lens, seed in trials:
        right, unchanged = trial(table, seq_lens, seed)
        if not unchanged:
            return "inputs"
        if not right:
            return clause
    return None


breach = Collector(find_contract_breach)

breach.edit(
    "nothing-is-ever-found",
    "every function is said to keep the contract. Call it, on inputs that tell a break from a match, and compare.",
    ("if not right:", "if False:"),
    ("if not unchanged:", "if False:"),
)
breach.edit(
    "full-blocks-only",
    "all test sequences end with a full block. Then there is no tail, and the order of the blocks does not show: attention "
    "over full blocks is the same in any order.",
    ("[[0, 1]], [6], 3", "[[0, 1]], [8], 3"),
    ("[[9, 7, 3]], [10], 5", "[[9, 7, 3]], [12], 5"),
    ("[12, 3], 6", "[12, 4], 6"),
)
breach.edit(
    "called-once",
    "each set of block numbers is used once. A function that remembers what it found under a number is found out when the "
    "same numbers hold something else in a later call.",
    ('        ("content", [[0, 1]], [8], 2),\n', ""),
    ("[[0, 1]], [6], 3", "[[12, 13]], [6], 3"),
    ("[[2, 5, 11]]", "[[2, 5, 10]]"),
)
breach.edit(
    "one-request-only",
    "every test has one request. Reading another request's row, or past the end of a shorter one, takes two.",
    ("[[4, 8, 14], [6, 1, 15]], [12, 3], 6", "[[4, 8, 14]], [12], 6"),
)
breach.edit(
    "table-in-order",
    "the test tables are 0, 1, 2, ...: a function that never looks at the table passes.",
    ("[[2, 5, 11]]", "[[0, 1, 2]]"),
    ("[[9, 7, 3]]", "[[0, 1, 2]]"),
    ("[[4, 8, 14], [6, 1, 15]]", "[[0, 1, 2], [3, 4, 5]]"),
)
breach.edit(
    "ascending-tables-only",
    "the blocks of every test table ascend: a function that sorts them passes.",
    ("[[9, 7, 3]]", "[[3, 7, 9]]"),
    ("[[4, 8, 14], [6, 1, 15]], [12, 3], 6", "[[4, 8, 14], [6, 7, 15]], [12, 3], 6"),
)
breach.edit(
    "inputs-not-compared",
    "nothing compares the arguments before and after the call: a function that writes into them passes.",
    ("if not unchanged:", "if False:"),
)
breach.edit(
    "every-bit-compared",
    "the outputs are compared bit by bit. Right functions add up in another order or in base 2: allow for rounding.",
    ("torch.allclose(output, expected, atol=1e-4)", "torch.equal(output, expected)"),
)
breach.edit(
    "tail-of-zeros",
    "unused slots hold 0, and 0 times a weight that should be 0 is 0. Fill them with NaN: it shows whatever touches it.",
    ("key_cache = torch.full((16, 4, 1, 8), torch.nan)", "key_cache = torch.zeros(16, 4, 1, 8)"),
    ("value_cache = torch.full((16, 4, 1, 8), torch.nan)", "value_cache = torch.zeros(16, 4, 1, 8)"),
)
breach.edit(
    "nan-forgiven",
    "NaN in the output is replaced before comparing, or counted as equal. NaN is what a read of an unowned slot looks like.",
    (
        "torch.allclose(output, expected, atol=1e-4)",
        "bool(((output - expected).abs() <= 1e-4).logical_or(output.isnan()).all())",
    ),
)
breach.edit(
    "always-the-same-clause",
    'that something is wrong is found, and not what: every break is called "tail". Change one thing at a time.',
    ("return clause", 'return "tail"'),
    ('return "inputs"', 'return "tail"'),
)


@breach.right("against-an-undisturbed-twin", part="find_contract_breach")
def against_a_twin(attend):
    """Compares the function with itself on a case with one thing changed; its first answer is believed."""
    generator = torch.Generator().manual_seed(0)
    k, v, query = (
        torch.randn(*shape, generator=generator) for shape in ((32, 4, 2, 8), (32, 4, 2, 8), (2, 4, 8))
    )

    def ask(table, lens, k=k, v=v):
        given = [
            query[: len(lens)].clone(),
            k.clone(),
            v.clone(),
            torch.tensor(table).int(),
            torch.tensor(lens).int(),
        ]
        kept = [t.clone() for t in given]
        out = attend(*given, 0.3)
        changed = any(not torch.allclose(a, b, equal_nan=True) for a, b in zip(given, kept))
        return "inputs" if changed else out

    def differ(a, b):
        return not torch.allclose(a, b, atol=1e-4)  # NaN differs from everything

    def dense(blocks, length, row=0):
        keys, values = k[blocks].flatten(0, 1)[:length], v[blocks].flatten(0, 1)[:length]
        return reference.dense_attention(query[row : row + 1], keys, values, 0.3)

    poisoned = [t.clone() for t in (k, v)]
    for t in poisoned:
        t[1, 2:] = torch.nan
        t[20:] = torch.nan
    first = ask([[0, 1]], [8])
    again = ask([[0, 1]], [8], v=v + 1)
    short = ask([[0, 1]], [6], *poisoned)
    scattered = ask([[3, 9, 12]], [12])
    disordered = ask([[17, 13, 4]], [9])
    two = ask([[15, 6, 19], [7, 23, 24]], [12, 2], *[torch.cat([t[:20], poisoned[0][20:]]) for t in (k, v)])
    answers = [first, again, short, scattered, disordered, two]
    if any(isinstance(answer, str) for answer in answers):
        return "inputs"
    if differ(again, first + 1):
        return "content"
    if differ(short, dense([0, 1], 6)):
        return "tail"
    if differ(scattered, dense([3, 9, 12], 12)):
        return "scatter"
    if differ(disordered, dense([17, 13, 4], 9)):
        return "order"
    if differ(two, torch.cat([dense([15, 6, 19], 12), dense([7], 2, row=1)])):
        return "ownership"
    return None
