# %% title [markdown]
# # Lesson 3: Build paged attention
#
# Here you write it yourself: from a loop over one head to a Triton kernel whose programs share one long sequence. The
# ladder has six rungs, and each stands on the one below:
#
# 0. one head of one request (given, and explained line by line);
# 1. scatter invariance: why the blocks may lie anywhere, and what a kernel must not do for that to stay true (question 8);
# 2. many heads, many requests, in torch (question 9);
# 3. the same in Triton, and every key read once (question 9);
# 4. causal and ragged: prefill, chunks and decodes in one call (question 10);
# 5. split-KV: one request, many programs (question 10b).
#
# **After it you can**
# - write a paged attention kernel with GQA and causal masking, and say why each line is there;
# - say what breaks, and how it looks, when one of these lines is missing;
# - see what a kernel reads (`course.record`) instead of guessing.
#
# | part | what you do | time | difficulty |
# | --- | --- | --- | --- |
# | 0 | rung 0: the loop, and what it remembers | 20 min | ●○○ |
# | 1 | rung 1: move the blocks, test the contract | 45 min | ●●○ |
# | 2 | rung 2: many heads, in torch | 30 min | ●●○ |
# | 3 | rung 3: the same in Triton; bytes | 60 min | ●●● |
# | 4 | rung 4: causal and ragged | 45 min | ●●● |
# | 5 | rung 5: split-KV | 35 min | ●●● |
# | 6 | your kernel under the roof; what to remember | 10 min | ●○○ |
#
# About four hours, for nobody in one sitting. After each rung there is a **natural stop**: what you have is checked, and the
# next rung starts from it.

# %% how-to-work [markdown]
# **No GPU needed.** Without one, Triton kernels run in Triton's interpreter: slow, program by program, and with every access
# visible. Sizes here are small enough for that.
#
# **Predict first**, write it down, then reveal. **Check as often as you like.** **Ten minutes stuck, not an hour**: each
# exercise has folds below it and `autograder.hint("paged_online_attention")` in a new cell. Taking the last hint is fine.
#
# Cells that call your functions stop with `NotImplementedError` until you have written them. That is expected. (In a cell
# with two gaps, each has that line: delete both.)

# %% setup nbgrader={"locked": true}
import math

import torch

import autograder
import course
import kernels  # before anything that loads triton: without a GPU, this turns its interpreter on
from course import plots, recorded_schedules, roofline, widgets
from kernels import reference

device = kernels.device()
print("torch", torch.__version__)
print("Triton kernels run on:", kernels.describe())


# %% small-batch-read [markdown]
# ## Part 0: Rung 0. One head of one request
#
# *20 minutes, ●○○, nothing graded.*
#
# A small cache to work on: blocks of 4 tokens, two requests, NaN wherever no token is. A real server has old numbers there.
# NaN is better for learning: whatever touches it becomes NaN, so that a forbidden read shows.


# %% small-batch
def small_batch(seq_lens, *, num_heads=1, num_kv_heads=1, head_size=16, block_size=4, seed=0):
    """Paged caches of these requests, blocks in random places: query, key_cache, value_cache, block_table, seq_lens."""
    generator = torch.Generator().manual_seed(seed)
    needed = [math.ceil(length / block_size) for length in seq_lens]
    num_blocks = sum(needed) + 2
    free = torch.randperm(num_blocks, generator=generator).tolist()
    key_cache = torch.full((num_blocks, block_size, num_kv_heads, head_size), torch.nan)
    value_cache = torch.full_like(key_cache, torch.nan)
    # Entries past a request's end are never read; here they name a block that holds nothing.
    unused = free.pop()
    block_table = torch.full((len(seq_lens), max(needed)), unused, dtype=torch.int32)
    for request, length in enumerate(seq_lens):
        for position in range(length):
            if position % block_size == 0:
                block_table[request, position // block_size] = free.pop()
            at = block_table[request, position // block_size], position % block_size
            key_cache[at] = torch.randn(num_kv_heads, head_size, generator=generator)
            value_cache[at] = torch.randn(num_kv_heads, head_size, generator=generator)
    query = torch.randn(len(seq_lens), num_heads, head_size, generator=generator)
    lens = torch.tensor(seq_lens, dtype=torch.int32)
    return tuple(tensor.to(device) for tensor in (query, key_cache, value_cache, block_table, lens))


query, key_cache, value_cache, block_table, seq_lens = small_batch([10, 5])
scale = query.shape[-1] ** -0.5
print("key_cache  ", list(key_cache.shape), " [num_blocks, block_size, num_kv_heads, head_size]")
print("block_table", block_table.tolist())
print("seq_lens   ", seq_lens.tolist())

# %% predict-reads
# Predict: request 0 has 10 tokens in blocks of 4. How many blocks does its attention read, and how many slots of the last?
prediction_blocks, prediction_slots = None, None


# %% one-head-read [markdown]
# The whole algorithm, for one head of one request. Read it with lesson 1's formulas beside it.


# %% one-head
def attend_one_head(query, key_cache, value_cache, blocks, seq_len, scale):
    """query [head_size]; caches [num_blocks, block_size, head_size]; blocks: the request's row of the block table."""
    block_size = key_cache.shape[1]
    # 1. What is remembered: the largest score, the sum of weights, the weighted sum of values.
    m, l, acc = -math.inf, 0.0, torch.zeros_like(query)
    # 2. Block by block, as far as the sequence goes.
    for first in range(0, seq_len, block_size):
        # 3. Logical block first // block_size lies in this physical block...
        block = int(blocks[first // block_size])
        # 4. ...and so many of its slots are ours.
        held = min(block_size, seq_len - first)
        keys, values = key_cache[block, :held], value_cache[block, :held]
        # 5. Scores of this block alone. The row of all scores never exists.
        scores = keys @ query * scale
        # 6. Online softmax: the maximum may grow...
        m_new = max(m, scores.max().item())
        # 7. ...and then everything before was weighted too high, by one and the same factor.
        alpha = math.exp(m - m_new)
        weights = torch.exp(scores - m_new)
        l = l * alpha + weights.sum().item()
        acc = acc * alpha + weights @ values
        m = m_new
    # 8. One division, at the end.
    return acc / l


mine = attend_one_head(query[0, 0], key_cache[:, :, 0], value_cache[:, :, 0], block_table[0], 10, scale)
truth = reference.paged_decode(query, key_cache, value_cache, block_table, seq_lens, scale)[0, 0]
print("largest difference from the reference:", f"{(mine - truth).abs().max().item():.1e}")

# %% one-head-steps [markdown]
# What it remembers after each block. `factor` is line 7's alpha; `acc / l` is what the answer would be if the sequence ended
# there. Find the block where the maximum grows: that is where the factor is not 1.

# %% steps
course.softmax_steps(query, key_cache, value_cache, block_table, seq_lens, scale, request=0)

# %% steps-picture
print("You predicted:", prediction_blocks, "blocks,", prediction_slots, "slots of the last one")
steps = course.softmax_steps(query, key_cache, value_cache, block_table, seq_lens, scale, request=0)
print("It read:      ", len(steps), "blocks,", steps[-1].end - steps[-1].first, "slots of the last one")
steps.picture()

# %% steps-view-read [markdown]
# Now a request that you have not seen: 22 tokens in 6 blocks, and a query with large scores. Step through it; before each
# reveal, say what `m` will be (the block's scores are shown) and whether line 7 has anything to do. In which blocks is the
# factor 1, and why do they get more frequent towards the end? In the table below the bars: from which block on would float16
# without line 6 have given nan?

# %% steps-view
other_query, *other_caches = small_batch([22], seed=4)
widgets.SoftmaxStepper(course.softmax_steps(8 * other_query, *other_caches, scale))

# %% steps-view-seen [markdown]
# <details><summary>What you should have seen</summary>
#
# The factor is 1 in blocks 2 to 5: the largest score of all stands in block 1. A block has to beat everything before it, and the more
# there is, the less likely that gets: on long rows nearly every factor is 1. float16 without line 6: from block 1 on, since exp(12.3)
# is more than 65504.
#
# </details>

# %% one-head-invariants [markdown]
# **What must hold, and what breaks if it doesn't**
#
# | line | must hold | or else |
# | --- | --- | --- |
# | 2 | the loop ends at `seq_len`, rounded up to blocks | the last tokens are missing, or unowned blocks are read |
# | 3 | the physical block comes from the table | right while blocks happen to lie in order, wrong text afterwards |
# | 4 | of the last block only `held` slots | old tokens of somebody else get weight; with NaN, NaN |
# | 6 | the maximum never falls | exp overflows |
# | 7 | `l` **and** `acc` get the factor | right for one block, wrong for two |
# | 8 | the division comes last, and only where something was seen | a mean of means; 0 / 0 for a request of length 0, as in this loop: yours will need a guard |
#
# **Natural stop.** Everything that follows is this loop, done for more at once.

# %% q8-read [markdown]
# ## Part 1: Rung 1. Scatter invariance
#
# *45 minutes, ●●○, question 8: 3 points for moving blocks, 5 for finding breaches, 4 for the explanation.*
#
# Line 3 has a consequence that carries paging as a whole: **where a block lies does not matter**. Move every block
# somewhere else, write the new numbers into the table, and attention gives the same bits. vLLM relies on it all the time: two
# requests share a prefix, a preempted request comes back in other blocks, blocks are swapped or sent to another machine.
#
# Below: a cache, and the same cache after a move. Same letters, other places.

# %% q8-picture
moves = {
    "before": [(0, 0), None, (1, 0), (0, 1), None, (0, 2), (1, 1), None],
    "after": [(1, 1), (0, 2), None, (1, 0), (0, 1), None, None, (0, 0)],
}
plots.pool_map(moves)

# %% predict-scatter
# Predict: you shuffle the blocks and forget the table. When does nobody notice? (write a sentence)
prediction_scatter = ""


# %% q8-relocate-read [markdown]
# ### Exercise: move the blocks
#
# `new_ids[i]` says where block `i` goes. Return new caches and a new table; leave the old ones as they are, somebody may
# still be reading them.


# %% q8-relocate-code nbgrader={"solution": true}
def relocate_blocks(key_cache, value_cache, block_table, new_ids):
    """(key_cache, value_cache, block_table) with block i's contents in block new_ids[i].

    Caches: [num_blocks, block_size, num_kv_heads, head_size]. block_table: [num_reqs, max_num_blocks] int32.
    new_ids: [num_blocks] int64, a permutation. The inputs stay untouched.
    """
    ### BEGIN SOLUTION
    new_key_cache = torch.empty_like(key_cache)
    new_value_cache = torch.empty_like(value_cache)
    # On the left of `=`: block i lands at new_ids[i]. On the right it would mean the way back.
    new_key_cache[new_ids] = key_cache
    new_value_cache[new_ids] = value_cache
    # The table holds ids, so that each entry is looked up. Its dtype is part of the contract.
    new_table = new_ids[block_table.long()].to(block_table.dtype)
    return new_key_cache, new_value_cache, new_table
    ### END SOLUTION


# %% q8-relocate nbgrader={"grade": true, "points": 3}
autograder.check("relocate_blocks", relocate_blocks)
### BEGIN HIDDEN TESTS
autograder.check("relocate_blocks", relocate_blocks, suite="hidden")
### END HIDDEN TESTS

# %% q8-relocate-hints [markdown]
# <details><summary>Hint: two blocks that change places work, three in a circle do not</summary>
#
# A swap is its own way back. <code>cache[new_ids]</code> fetches <b>from</b> <code>new_ids</code>;
# <code>new_cache[new_ids] = cache</code> puts there.
#
# </details>
#
# More: `autograder.hint("relocate_blocks")`.

# %% q8-invariance
# The same attention, before and after five random moves: not close, the same bits.
arguments = small_batch([10, 5, 7], num_heads=4, num_kv_heads=2)
before = reference.paged_decode(*arguments, scale)
for seed in range(5):
    new_ids = torch.randperm(len(arguments[1]), generator=torch.Generator().manual_seed(seed)).to(device)
    moved = relocate_blocks(*arguments[1:4], new_ids)
    after = reference.paged_decode(arguments[0], *moved, arguments[4], scale)
    print(moved[2][0].tolist(), "the same bits" if torch.equal(before, after) else "DIFFERENT")

# %% q8-contract-read [markdown]
# ### Exercise: who breaks the contract?
#
# That it holds for the reference does not make it hold for a kernel. Here is the contract of a paged attention function, clause by
# clause:
#
# | clause | says | broken by |
# | --- | --- | --- |
# | `"tail"` | slots after a request's last token never reach its output | reading whole blocks; weight 0 times NaN |
# | `"scatter"` | blocks may lie anywhere | taking blocks to be contiguous, or block j to be at j |
# | `"order"` | entry j of the table is where tokens j · block_size and on are | sorting the table |
# | `"content"` | what counts is what the cache holds now | remembering by block number |
# | `"ownership"` | no request sees another's blocks or the table past its end | using the longest length for all |
# | `"inputs"` | arguments come back as they were | scaling the query in place |
#
# Write a function that is given *any* `attend(query, key_cache, value_cache, block_table, seq_lens, scale)` (one query token a
# request) and says which clause it breaks, or `None`. It cannot look inside: it makes inputs, calls, compares with
# `reference.paged_decode`. Not one bit for bit, though: right functions add up in different orders.
#
# One clause is harder to see than it looks. Before you start:

# %% predict-order
# Predict: a function sorts the block table. A request has exactly 3 full blocks. Is its decode output wrong?
prediction_order = None  # True or False

# %% order-reveal
query, key_cache, value_cache, block_table, seq_lens = small_batch([12])
scale = query.shape[-1] ** -0.5
print("You predicted:", prediction_order)
for length in (12, 10):
    lens = torch.tensor([length], dtype=torch.int32, device=device)
    backwards = block_table.flip(1).contiguous()
    right = reference.paged_decode(query, key_cache, value_cache, block_table, lens, scale)
    wrong = reference.paged_decode(query, key_cache, value_cache, backwards, lens, scale)
    print(f"{length} tokens, table backwards: differs by {(right - wrong).abs().max().item():.1e}")

# %% order-remark [markdown]
# Attention is a weighted mean: over full blocks the order of the terms does not matter. A test with full blocks only
# **cannot see** a wrong order. The partial last block does: read backwards, the tokens that are left out are others. (So do
# causal queries, rung 4.) Choose your test inputs with that in mind.
#
# This also answers the first prediction of this part. Blocks are shuffled and the table is forgotten: nobody notices if only blocks moved
# that no request owns, or if each request's blocks, all of them full, changed places among themselves and every query is a decode. In
# every other case a request reads a stranger's tokens, or its own in the wrong place, and no error is raised.


# %% q8-contract-code nbgrader={"solution": true}
def find_contract_breach(attend):
    """The clause that `attend` breaks: "tail", "scatter", "order", "content", "ownership", "inputs"; or None."""

    ### BEGIN SOLUTION
    def trial(table, seq_lens, seed):
        """Whether attend gives the right output for random tokens in the blocks of `table`, and leaves its inputs alone."""
        numbers = torch.Generator().manual_seed(seed)
        # Everything that nobody owns is NaN: whoever touches it cannot hide it.
        key_cache = torch.full((16, 4, 1, 8), torch.nan)
        value_cache = torch.full((16, 4, 1, 8), torch.nan)
        for row, seq_len in zip(table, seq_lens):
            for position in range(seq_len):
                at = row[position // 4], position % 4
                key_cache[at] = torch.randn(1, 8, generator=numbers)
                value_cache[at] = torch.randn(1, 8, generator=numbers)
        query = torch.randn(len(seq_lens), 2, 8, generator=numbers)
        block_table = torch.tensor(table, dtype=torch.int32)
        arguments = (query, key_cache, value_cache, block_table, torch.tensor(seq_lens, dtype=torch.int32))
        expected = reference.paged_decode(*arguments, 0.5)
        given = [argument.clone() for argument in arguments]
        output = attend(*given, 0.5)
        unchanged = all(torch.equal(a.nan_to_num(7.5), b.nan_to_num(7.5)) for a, b in zip(arguments, given))
        # NaN is close to nothing, so that a NaN in the output is a break.
        return torch.allclose(output, expected, atol=1e-4), unchanged

    # From harmless to harsh, one thing more at a time: the first trial that fails names the clause.
    trials = [
        ("content", [[0, 1]], [8], 1),
        ("content", [[0, 1]], [8], 2),  # the same numbers, other tokens
        ("tail", [[0, 1]], [6], 3),  # the first tail
        ("scatter", [[2, 5, 11]], [12], 4),  # no tail, blocks apart
        ("order", [[9, 7, 3]], [10], 5),  # descending, and a tail, or order would not show
        (
            "ownership",
            [[4, 8, 14], [6, 1, 15]],
            [12, 3],
            6,
        ),  # the short request's row goes on with others' blocks
    ]
    for clause, table, seq_lens, seed in trials:
        right, unchanged = trial(table, seq_lens, seed)
        if not unchanged:
            return "inputs"
        if not right:
            return clause
    return None
    ### END SOLUTION


# %% q8-contract nbgrader={"grade": true, "points": 5}
autograder.check("find_contract_breach", find_contract_breach)
### BEGIN HIDDEN TESTS
autograder.check("find_contract_breach", find_contract_breach, suite="hidden")
### END HIDDEN TESTS

# %% q8-contract-hints [markdown]
# <details><summary>Hint: where do I start?</summary>
#
# With a helper that builds one small case, calls <code>attend</code> on clones, and compares. Then a list of cases, each
# with the clause that it is meant to test.
#
# </details>
#
# <details><summary>Hint: I find a break and name the wrong clause</summary>
#
# A case that changes two things at once cannot tell them apart. No tail in the scatter case; ascending blocks in the tail
# case; and the test for "content" first, because a function that remembers spoils every later one.
#
# </details>
#
# More: `autograder.hint("find_contract_breach")`.

# %% q8-explain-read [markdown]
# **In your own words** (4 points, graded by hand). What is scatter invariance, which line of the kernel gives it, and name two
# things that a server does because of it. Then: why can a test with full blocks not see a wrong block order, and what can?

# %% q8-explain [markdown] nbgrader={"grade": true, "solution": true, "points": 4}
# ### BEGIN SOLUTION
# **Model answer.** The output depends on which tokens a request has and not on where their blocks lie: move block b to
# new_ids[b], renumber the table, and every output is the same bits. It comes from one line, the look-up of the physical block
# in `block_table` for every logical block; nothing else in the kernel may know physical numbers. Servers use it to give a
# request any free block (no fragmentation), to share the blocks of a common prefix between requests, to preempt a request and
# bring it back elsewhere, to swap or send blocks. Decode is a weighted mean over all tokens, and a sum does not depend on the
# order of its terms: over full blocks every order gives the same. A partial last block shows it, because a wrong order leaves
# out other tokens (and reads the tail); so do causal queries, whose mask goes by position.
#
# **Rubric, 1 point each**
# - *What*: same output wherever blocks lie, given a table that follows.
# - *Which line*: the table look-up; physical numbers nowhere else.
# - *Two uses* out of: any free block, prefix sharing, preemption, swapping or transfer, copy-on-write. Half a point for one.
# - *Order*: full blocks hide it because a sum has no order; partial tail or causal mask (position-dependent) shows it.
# ### END SOLUTION

# %% q8-stop [markdown]
# **Natural stop.** You have a tester for attention functions. It will test yours.

# %% q9-read [markdown]
# ## Part 2: Rung 2. Many heads, many requests
#
# *30 minutes, ●●○, question 9: 8 points in torch, 10 in Triton, 4 for bytes.*
#
# Two loops around the loop: requests and heads. New is **grouped-query attention** (GQA): several query heads share one kv head, so that
# the cache is smaller. With `num_heads = 8` and `num_kv_heads = 2`, who shares with whom?

# %% predict-gqa
# Predict: which kv head does query head 3 read, of 8 query heads and 2 kv heads?
prediction_kv_head = None

# %% gqa-reveal
print("You predicted:", prediction_kv_head)
query, key_cache, value_cache, block_table, seq_lens = small_batch([10, 5], num_heads=8, num_kv_heads=2)
for head in (3, 4):
    steps = course.softmax_steps(query, key_cache, value_cache, block_table, seq_lens, scale, head=head)
    print(steps.title)

# %% q9-torch-read [markdown]
# Neighbours share: query head h reads kv head h // (num_heads // num_kv_heads). The other map, h % num_kv_heads, runs just as
# well and mixes up every head.
#
# ### Exercise
#
# In torch, block by block, with the sums in float32 whatever the cache holds. The row of scores is never built, and the sequence is
# never copied into one tensor: that copy is what paging saves. Loops or vectorised, as you like.


# %% q9-torch-code nbgrader={"solution": true}
def paged_online_attention(query, key_cache, value_cache, block_table, seq_lens, scale):
    """Attention of one query token a request over a paged cache: [num_reqs, num_heads, head_size], query's dtype.

    query: [num_reqs, num_heads, head_size]. Caches: [num_blocks, block_size, num_kv_heads, head_size].
    block_table: [num_reqs, max_num_blocks] int32; entries past a request's end mean nothing. seq_lens: [num_reqs] int32.
    A request of length 0 gets zeros.
    """
    ### BEGIN SOLUTION
    num_reqs, num_heads, head_size = query.shape
    block_size, num_kv_heads = key_cache.shape[1:3]
    num_queries_per_kv = num_heads // num_kv_heads
    output = torch.zeros_like(query)  # a request of length 0 keeps its zeros
    for request in range(num_reqs):
        seq_len = int(seq_lens[request])
        if seq_len == 0:
            continue  # l would stay 0, and 0 / 0 is NaN
        # [num_kv_heads, num_queries_per_kv, head_size]: query heads in groups that share a kv head.
        q = query[request].float().view(num_kv_heads, num_queries_per_kv, head_size)
        m = torch.full(q.shape[:2], -math.inf, device=q.device)
        l = torch.zeros_like(m)
        acc = torch.zeros_like(q)
        for start in range(0, seq_len, block_size):
            block = int(block_table[request, start // block_size])
            held = min(block_size, seq_len - start)
            # Cut off before anything is computed: 0 * NaN would still be NaN.
            k = key_cache[block, :held].float()
            v = value_cache[block, :held].float()
            scores = torch.einsum("gqd,kgd->gqk", q, k) * scale
            m_new = torch.maximum(m, scores.amax(dim=-1))
            alpha = torch.exp(m - m_new)
            p = torch.exp(scores - m_new[..., None])
            l = l * alpha + p.sum(dim=-1)
            acc = acc * alpha[..., None] + torch.einsum("gqk,kgd->gqd", p, v)
            m = m_new
        output[request] = (acc / l[..., None]).view(num_heads, head_size).to(query.dtype)
    return output
    ### END SOLUTION


# %% q9-torch nbgrader={"grade": true, "points": 8}
autograder.check("paged_online_attention", paged_online_attention)
### BEGIN HIDDEN TESTS
autograder.check("paged_online_attention", paged_online_attention, suite="hidden")
### END HIDDEN TESTS

# %% q9-torch-hints [markdown]
# <details><summary>Hint: NaN, although I mask</summary>
#
# Are the <b>values</b> of the tail cut off too? A weight of 0 times a value of NaN is NaN. Slice both:
# <code>cache[block, :held]</code>.
#
# </details>
#
# <details><summary>Hint: float32 passes, float16 does not</summary>
#
# Products of two float16 numbers can exceed 65504, and so can a sum of values. <code>.float()</code> on query, keys and values
# first, <code>.to(query.dtype)</code> on the result last.
#
# </details>
#
# <details><summary>Hint: only batches with several query heads to a kv head are wrong</summary>
#
# <code>query[request].view(num_kv_heads, num_queries_per_kv, head_size)</code> puts neighbours together, which is what is
# wanted.
#
# </details>
#
# More: `autograder.hint("paged_online_attention")`.

# %% q9-own-tester
# Your tester on your kernel. (It works on CPU tensors; your function does not care.)
print("find_contract_breach says:", find_contract_breach(paged_online_attention))

# %% q9-torch-invariants [markdown]
# **What must hold, and what breaks if it doesn't**
#
# | must hold | or else |
# | --- | --- |
# | kv head = head // num_queries_per_kv | plausible numbers, every head wrong; a model that babbles |
# | sums in float32 | inf from large values, and errors that grow with the sequence |
# | V's tail cut off, not only the scores | NaN |
# | the length of *this* request | short requests read the padding of the table |
# | output in the query's dtype, inputs untouched | the next layer fails, or the next request does |
#
# **Natural stop.**

# %% triton-read [markdown]
# ## Part 3: Rung 3. The same in Triton
#
# *60 minutes, ●●●.*
#
# A Triton kernel is the body of a loop that a GPU runs for all values of its counters at once. Each value is a **program**. A
# program works on tiles: `tl.arange(0, 16)` is sixteen numbers, `tl.load(ptr + offsets, mask=..., other=0.0)` loads as many. A
# tensor arrives as a pointer to its first element, and you do the index arithmetic with strides yourself.
#
# Below a whole kernel in six lines: program r adds up row r. A row of six numbers does not fill a tile of eight, so that lanes past
# `num_columns` are masked: they load nothing.


# %% triton-setup nbgrader={"locked": true}
import triton
import triton.language as tl

print("triton", triton.__version__, "on:", kernels.describe())


# %% toy-kernel
@triton.jit
def _row_sums_kernel(x_ptr, out_ptr, num_columns, stride_row, TILE: tl.constexpr):
    row = tl.program_id(0)
    column = tl.arange(0, TILE)
    x = tl.load(x_ptr + row * stride_row + column, mask=column < num_columns, other=0.0)
    tl.store(out_ptr + row, tl.sum(x, axis=0))


x = torch.arange(12.0, device=device).reshape(2, 6)
sums = torch.empty(2, device=device)
_row_sums_kernel[(2,)](x, sums, 6, x.stride(0), TILE=8)
print(sums.tolist())

# %% toy-record-read [markdown]
# `course.record` runs kernels in the interpreter and keeps every access. So it does on a machine with a GPU: within the block, and
# only there, your kernels run in the interpreter, on copies of your tensors. That is slow, so it is for small cases.

# %% toy-record
with course.record(x=x, sums=sums) as recording:
    _row_sums_kernel[(2,)](x, sums, 6, x.stride(0), TILE=8)
for access in recording:
    lanes = f"{access.num_lanes - access.num_masked} of {access.num_lanes} lanes"
    print(
        f"program {access.program[0]} {access.kind}s {access.tensor:4}  {lanes}, {access.bytes:2} bytes: {access.line.text}"
    )

# %% toy-out-of-bounds-read [markdown]
# And without the mask? A GPU would read what lies behind the tensor, and mostly nobody would notice. The recorder stops before
# memory is touched and says where. The checks below do the same with your kernels: a wild pointer costs you a message and not the
# notebook.


# %% toy-out-of-bounds
@triton.jit
def _unmasked_kernel(x_ptr, out_ptr, stride_row, TILE: tl.constexpr):
    row = tl.program_id(0)
    x = tl.load(x_ptr + row * stride_row + tl.arange(0, TILE))
    tl.store(out_ptr + row, tl.sum(x, axis=0))


try:
    with course.record(x=x, sums=sums) as recording:
        _unmasked_kernel[(2,)](x, sums, x.stride(0), TILE=8)
except course.recording.OutOfBounds as error:
    print(error)

# %% toy-out-of-bounds-view-read [markdown]
# The recording up to there, to step through. Predict first: program 0 works on row 0, which has six numbers. What do its lanes 6
# and 7 load, and why did nothing stop *them*? Press *Next* once, then look at `x`. Then *Next marked*: the access that was
# stopped, and its line. Choose a line to see only its accesses; choose a cell to see who touched it.

# %% toy-out-of-bounds-view
widgets.MemoryView(recording)

# %% predict-mask
# Predict: head_size is 80, and tl.arange takes powers of two only. Without a mask on the dimensions: what do 48 lanes load?
prediction_lanes = ""

# %% q9-triton-read [markdown]
# ### Exercise: the kernel
#
# The answer to the last question: the next kv head's key; behind the last head, the next slot's; behind the last slot, whatever follows
# the cache. No error, wrong scores. So masks guard three things: slots past `seq_len`, dimensions past `HEAD_SIZE`, table entries past
# the end.
#
# One more trap. `block * stride_block` is computed in the block number's type, int32, and a cache can hold more than 2³¹
# elements: `.to(tl.int64)` first. A check has such a cache (most of it is never touched, so that it costs no memory).
#
# Start with one program for each request and query head if you like: `q9-triton` takes it. `q9-bytes`, further down, wants more.
# Parameters and launch are yours to change. `tl.exp`, `tl.max`, `tl.sum`, `tl.where`, `tl.maximum` and, for matrix products,
# `tl.dot(a, b, input_precision="ieee")` are all you need. A number that is known when the kernel is compiled is a
# `tl.constexpr`.


# %% q9-triton-code nbgrader={"solution": true}
@triton.jit
def _paged_decode_kernel(
    query_ptr,  # [num_reqs, num_heads, head_size]
    key_cache_ptr,  # [num_blocks, block_size, num_kv_heads, head_size]
    value_cache_ptr,  # the same shape
    block_table_ptr,  # [num_reqs, max_num_blocks]
    seq_lens_ptr,  # [num_reqs]
    out_ptr,  # [num_reqs, num_heads, head_size]
    scale,
    stride_query_req,
    stride_query_head,
    stride_key_block,
    stride_key_slot,
    stride_key_head,
    stride_value_block,
    stride_value_slot,
    stride_value_head,
    stride_table_req,
    NUM_QUERIES_PER_KV: tl.constexpr,
    ROWS: tl.constexpr,  # NUM_QUERIES_PER_KV padded to what tl.dot takes: at least 16, a power of two
    HEAD_SIZE: tl.constexpr,
    HEAD_SIZE_PADDED: tl.constexpr,  # a power of two
    BLOCK_SIZE: tl.constexpr,
    TILE_SIZE: tl.constexpr,  # tokens that are worked on at a time
):
    ### BEGIN SOLUTION
    # One program: one request, one kv head, and all query heads that share it. Each key is loaded once.
    request = tl.program_id(0)
    kv_head = tl.program_id(1)
    row = tl.arange(0, ROWS)
    dim = tl.arange(0, HEAD_SIZE_PADDED)
    in_head = dim < HEAD_SIZE
    head = kv_head * NUM_QUERIES_PER_KV + row
    # Two dimensions of offsets: [:, None] makes a column of rows, [None, :] a row of dimensions.
    at = request * stride_query_req + head[:, None] * stride_query_head + dim[None, :]
    mask = (row < NUM_QUERIES_PER_KV)[:, None] & in_head[None, :]
    query = tl.load(query_ptr + at, mask=mask, other=0.0)
    seq_len = tl.load(seq_lens_ptr + request)
    # A finite first maximum: -inf - (-inf) never happens.
    m = tl.full([ROWS], -1e30, tl.float32)
    l = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, HEAD_SIZE_PADDED], tl.float32)
    for start in range(0, seq_len, TILE_SIZE):
        position = start + tl.arange(0, TILE_SIZE)
        held = position < seq_len
        # A tile may span several blocks: every position asks the table for its own.
        table_at = block_table_ptr + request * stride_table_req + position // BLOCK_SIZE
        # 64 bits before it is multiplied by a stride.
        block = tl.load(table_at, mask=held, other=0).to(tl.int64)
        slot = position % BLOCK_SIZE
        key_at = block * stride_key_block + slot * stride_key_slot + kv_head * stride_key_head
        value_at = block * stride_value_block + slot * stride_value_slot + kv_head * stride_value_head
        # What is masked is not loaded: zeros, and never the NaN of a slot that nobody owns.
        mask_kv = held[:, None] & in_head[None, :]
        key = tl.load(key_cache_ptr + key_at[:, None] + dim[None, :], mask=mask_kv, other=0.0)
        value = tl.load(value_cache_ptr + value_at[:, None] + dim[None, :], mask=mask_kv, other=0.0)
        # "ieee": in float32 a GPU would otherwise round the factors to tf32, 10 bits.
        scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        # A key of zeros has score 0, which is a score: hide it.
        scores = tl.where(held[None, :], scores, float("-inf"))
        m_new = tl.maximum(m, tl.max(scores, axis=1))
        alpha = tl.exp(m - m_new)
        p = tl.exp(scores - m_new[:, None])
        l = l * alpha + tl.sum(p, axis=1)
        acc = acc * alpha[:, None] + tl.dot(p.to(value.dtype), value, input_precision="ieee")
        m = m_new
    # A request of length 0 has l = 0 and acc = 0: 0 / 1.
    out = acc / tl.where(l == 0.0, 1.0, l)[:, None]
    tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=mask)
    ### END SOLUTION


def paged_online_attention_triton(query, key_cache, value_cache, block_table, seq_lens, scale):
    """The same contract as `paged_online_attention`."""
    ### BEGIN SOLUTION
    num_reqs, num_heads, head_size = query.shape
    block_size, num_kv_heads = key_cache.shape[1:3]
    num_queries_per_kv = num_heads // num_kv_heads
    output = torch.empty_like(query)
    _paged_decode_kernel[(num_reqs, num_kv_heads)](
        query,
        key_cache,
        value_cache,
        block_table,
        seq_lens,
        output,
        scale,
        *query.stride()[:2],
        *key_cache.stride()[:3],
        *value_cache.stride()[:3],
        block_table.stride(0),
        NUM_QUERIES_PER_KV=num_queries_per_kv,
        ROWS=max(16, triton.next_power_of_2(num_queries_per_kv)),
        HEAD_SIZE=head_size,
        HEAD_SIZE_PADDED=triton.next_power_of_2(head_size),
        BLOCK_SIZE=block_size,
        TILE_SIZE=32,
    )
    return output
    ### END SOLUTION


# %% q9-triton nbgrader={"grade": true, "points": 10}
autograder.check("paged_online_attention_triton", paged_online_attention_triton)
### BEGIN HIDDEN TESTS
autograder.check("paged_online_attention_triton", paged_online_attention_triton, suite="hidden")
### END HIDDEN TESTS

# %% q9-triton-hints [markdown]
# <details><summary>Hint: arange's range must be a power of 2</summary>
#
# <code>triton.next_power_of_2(head_size)</code> for the tile, and <code>dim &lt; HEAD_SIZE</code> in every mask.
#
# </details>
#
# <details><summary>Hint: "goes out of bounds"</summary>
#
# The message names program, line, tensor and offset. Offset a little past the end: a mask is missing. Hugely negative: 32 bits
# were too few. Block number of nowhere: the table was read past the request's end.
#
# </details>
#
# <details><summary>Hint: incompatible shapes in a product or a sum</summary>
#
# Write the shape behind every line as a comment. <code>query [ROWS, D]</code>, <code>key [TILE, D]</code>, <code>scores [ROWS,
# TILE]</code>, <code>m, l, alpha [ROWS]</code>, <code>acc [ROWS, D]</code>.
#
# </details>
#
# More: `autograder.hint("paged_online_attention_triton")`.

# %% q9-see-read [markdown]
# Now look at what your kernel reads. Rows of the table are tensors; `times the least` is how often their bytes were loaded, against
# once for each key and value.

# %% predict-bytes
# Predict: 8 query heads share one kv head. One program for each query head: how many times is each key loaded?
prediction_times = None

# %% q9-see
batch = small_batch([10, 5, 7], num_heads=8, num_kv_heads=1)
print("You predicted:", prediction_times)
names = ("query", "key_cache", "value_cache", "block_table", "seq_lens")
with course.record(**dict(zip(names, batch))) as recording:
    paged_online_attention_triton(*batch, scale)
recording.least = course.recording.least_bytes(batch[4], batch[1], batch[2])
for row in recording.table():
    if row.loads:
        print(
            f"{row.tensor:12} {row.bytes_loaded:6} bytes in {row.loads:3} loads, {row.times_least:.2f} times the least"
        )
stray = recording.trespasses(batch[3], batch[4])
print("reads of slots that a program's request does not own:", len(stray))

# %% q9-see-slots
# Which slots of the cache were read, and how often: one row a block, one column a slot.
print(recording.reads("key_cache")[:, :, 0, 0])

# %% q9-see-view-read [markdown]
# The same recording as a picture. Blocks have their owners (r0 is request 0), slots that nobody owns are hatched. Choose
# program (1, 0, 0), predict which blocks and slots it will touch, then step. Then choose all, and the line that loads keys: does
# any number in `key_cache` get larger than 1 at the end? That is the byte you pay for twice. Is a hatched slot ever touched? It
# would be marked ✘, with the line that did it.

# %% q9-see-view
widgets.MemoryView(recording, batch[3], batch[4])

# %% q9-bytes-read [markdown]
# ### Exercise: read every key once
#
# Decode is limited by how fast keys and values come out of memory. A kernel that loads them once per *query* head asks for eight times
# as much. If the table above says 1.00 for `key_cache`, you are done; if it says 8, go back to your kernel: one program for all
# query heads of a kv head.
#
# Every byte is counted, in the interpreter. On a GPU this check takes your output from the compiled kernel, and counts in a second
# run of it, in the interpreter.

# %% q9-bytes nbgrader={"grade": true, "points": 4}
autograder.check("kv_bytes", paged_online_attention_triton)
### BEGIN HIDDEN TESTS
autograder.check("kv_bytes", paged_online_attention_triton, suite="hidden")
### END HIDDEN TESTS

# %% q9-bytes-hints [markdown]
# <details><summary>Hint: what does a program hold?</summary>
#
# The queries of all heads that share the kv head, as a tile of rows. The grid becomes <code>(num_reqs, num_kv_heads)</code>, the
# scores a matrix product, <code>m</code> and <code>l</code> one number a row.
#
# </details>
#
# More: `autograder.hint("kv_bytes")`.

# %% q9-triton-invariants [markdown]
# **What must hold, and what breaks if it doesn't**
#
# | must hold | or else |
# | --- | --- |
# | masks on slots, dimensions and table entries | reads of others' memory: wrong text on a good day, a dead process on a bad one |
# | 64-bit block offsets | right in every small test, wrong in production |
# | masked scores −inf, masked values 0 | a padded key's score of 0 gets weight |
# | a row that sees nothing divides by 1 | NaN for requests of length 0 |
# | one load of K and V per kv head | the right numbers, up to eight times slower |
#
# **Where this lives.** `kernels/single_query.py` is the first version, `kernels/gqa_decode.py` the second. In vLLM 0.22.1:
# `vllm/v1/attention/ops/triton_unified_attention.py:179` (`kernel_unified_attention`); the look-up and its 64 bits,
# `vllm/v1/attention/ops/triton_unified_attention.py:403` (`.to(tl.int64)`); at least 16 rows,
# `vllm/v1/attention/ops/triton_unified_attention.py:840` (`16 if num_queries_per_kv <= 16`).
#
# **Natural stop.** Half of the ladder.

# %% q10-read [markdown]
# ## Part 4: Rung 4. Causal and ragged
#
# *45 minutes, ●●●, question 10: 8 points in torch, 8 in Triton.*
#
# A step of a server is rarely decode alone. One request brings its whole prompt (prefill), one brings the next chunk of a long one,
# others one token each. All query tokens lie in one tensor; `query_start_loc` says whose are which.

# %% q10-layout
plots.query_layout(num_computed_tokens=[0, 5, 9], num_new_tokens=[4, 3, 1])

# %% q10-position-read [markdown]
# A query may see the tokens up to and including its own. Where is its own? The new tokens are the **last** of the sequence: query
# i of n sits at position `seq_len - n + i`.

# %% predict-positions
# Predict: 5 tokens are in the cache, 3 are new. Which is the last key position that each of the three queries sees?
prediction_positions = None  # a list of three

# %% q10-mask
print("You predicted:", prediction_positions)
seq_len, num_new = 8, 3
query_position = torch.arange(seq_len - num_new, seq_len)
key_position = torch.arange(seq_len)
for position in query_position.tolist():
    row = "".join("■ " if key <= position else "· " for key in key_position.tolist())
    print(f"query at position {position}: {row} sees up to {position}")

# %% q10-tiles-read [markdown]
# A kernel does not go over the mask entry by entry. It takes tiles: BLOCK_Q queries by TILE_SIZE keys. A tile that nobody sees is **skipped**,
# never even loaded. A tile that everybody sees whole is **full**: no mask to apply. Only the tiles in between are **masked**. And whatever
# is computed and not seen is wasted.
#
# Below is a chunk of 6 new tokens after 10 in the cache. **Predict** how many of its 8 tiles are of which kind, and commit. Then:
#
# 1. Begin from *causal prefill*: which share of the tiles is skipped, and why is it less than half of them?
# 2. Begin from *decode*: nothing is masked. What is wasted all the same, and which of the two tile sizes is to blame?
# 3. Begin from *sliding window* and make BLOCK_Q larger. Why do the skipped tiles in the lower left go first?

# %% q10-tiles
widgets.MaskTiles(num_computed=10, num_new=6, block_q=4, tile_size=4, predict=True)

# %% q10-tiles-answers [markdown]
# <details><summary>What you should have seen</summary>
#
# <b>1.</b> 3 of 9. The tiles on the diagonal have to be computed: with n blocks on a side, n of n * n tiles are masked and
# (n - 1) / 2n skipped. Half is what it comes to for long prompts.
#
# <b>2.</b> Three of the block's four rows are padding: 75 % of the entries. BLOCK_Q is too large for one query token. Kernels fill such rows
# with the query heads that share a kv head, as yours does.
#
# <b>3.</b> A tile can be skipped if no query of its block has a window that reaches into it. A larger block has a query that stands earlier,
# whose window reaches further back.
#
# </details>

# %% q10-torch-read [markdown]
# The triangle of the mask ends in the bottom right corner: the last query sees the last key. It does not begin in the top left one. Three mistakes to look out for: `<` for `<=`; counting from the chunk's
# start; masking the last block only, when a chunk spans several. **A check of your own:** a prompt in one piece and the same prompt
# in chunks must give the same output.
#
# ### Exercise, in torch first


# %% q10-torch-code nbgrader={"solution": true}
def paged_causal_attention(query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale):
    """Causal attention of a ragged batch: [num_tokens, num_heads, head_size], query's dtype.

    query: [num_tokens, num_heads, head_size]; request r's are query_start_loc[r] to query_start_loc[r + 1], the last tokens of
    its sequence. query_start_loc: [num_reqs + 1] int32. A request may have no new token, and no token at all. Others as above.
    """
    ### BEGIN SOLUTION
    num_heads, head_size = query.shape[1:]
    block_size, num_kv_heads = key_cache.shape[1:3]
    num_queries_per_kv = num_heads // num_kv_heads
    output = torch.zeros_like(query)
    for request in range(len(seq_lens)):
        first, last = int(query_start_loc[request]), int(query_start_loc[request + 1])
        seq_len, num_new = int(seq_lens[request]), last - first
        if num_new == 0:
            continue
        q = query[first:last].float().unflatten(1, (num_kv_heads, num_queries_per_kv))
        # The new tokens are the sequence's last.
        query_position = torch.arange(seq_len - num_new, seq_len, device=q.device)
        # Finite, because a row may see nothing of a block: -inf - (-inf) would be NaN.
        m = torch.full(q.shape[:-1], -1e30, device=q.device)
        l = torch.zeros_like(m)
        acc = torch.zeros_like(q)
        for start in range(0, seq_len, block_size):
            block = int(block_table[request, start // block_size])
            held = min(block_size, seq_len - start)
            k = key_cache[block, :held].float()
            v = value_cache[block, :held].float()
            key_position = torch.arange(start, start + held, device=q.device)
            # Its own token included.
            visible = key_position[None, :] <= query_position[:, None]
            scores = torch.einsum("tgqd,kgd->tgqk", q, k) * scale
            scores = scores.masked_fill(~visible[:, None, None, :], -math.inf)
            m_new = torch.maximum(m, scores.amax(dim=-1))
            alpha = torch.exp(m - m_new)
            p = torch.exp(scores - m_new[..., None])
            l = l * alpha + p.sum(dim=-1)
            acc = acc * alpha[..., None] + torch.einsum("tgqk,kgd->tgqd", p, v)
            m = m_new
        output[first:last] = (acc / l[..., None]).flatten(1, 2).to(query.dtype)
    return output
    ### END SOLUTION


# %% q10-torch nbgrader={"grade": true, "points": 8}
autograder.check("paged_causal_attention", paged_causal_attention)
### BEGIN HIDDEN TESTS
autograder.check("paged_causal_attention", paged_causal_attention, suite="hidden")
### END HIDDEN TESTS

# %% q10-torch-hints [markdown]
# <details><summary>Hint: prefill is right, chunks are wrong</summary>
#
# Print the query positions of a chunk. They start at <code>seq_len - num_new</code>, not at 0.
#
# </details>
#
# <details><summary>Hint: NaN in the first rows</summary>
#
# A row that sees nothing of a block has only −inf there. If <code>m</code> is −inf too, the difference is NaN. Start
# <code>m</code> at −1e30.
#
# </details>
#
# More: `autograder.hint("paged_causal_attention")`.

# %% q10-chunks
# One prompt of 10 tokens, in one piece and in chunks of 1 to 5: the same output.
prompt = small_batch([10], num_heads=4, num_kv_heads=2)
queries = torch.randn(10, 4, 16, generator=torch.Generator().manual_seed(1)).to(device)


def attend_chunk(first, last):
    """The outputs of the prompt's tokens first to last, when they are the newest."""
    lens = torch.tensor([last], dtype=torch.int32, device=device)
    starts = torch.tensor([0, last - first], dtype=torch.int32, device=device)
    return paged_causal_attention(queries[first:last], *prompt[1:4], lens, starts, scale)


whole = attend_chunk(0, 10)
for size in (1, 2, 3, 5):
    chunks = torch.cat([attend_chunk(first, min(first + size, 10)) for first in range(0, 10, size)])
    print(f"chunks of {size}: largest difference {(chunks - whole).abs().max().item():.1e}")

# %% q10-triton-read [markdown]
# ### Exercise, in Triton
#
# From your decode kernel, three changes: a program has several query tokens, each with a position of its own (so rows are pairs of
# token and head); its rows start at `query_start_loc`; the mask knows both positions. The grid needs the longest query, which only
# the host knows: programs whose first token is past their request's last return at once. And mask the **store**: a tile's padding rows
# are the next request's output.


# %% q10-triton-code nbgrader={"solution": true}
@triton.jit
def _paged_causal_kernel(
    query_ptr,  # [num_tokens, num_heads, head_size]
    key_cache_ptr,
    value_cache_ptr,
    block_table_ptr,
    seq_lens_ptr,
    query_start_loc_ptr,  # [num_reqs + 1]
    out_ptr,
    scale,
    stride_query_token,
    stride_query_head,
    stride_key_block,
    stride_key_slot,
    stride_key_head,
    stride_value_block,
    stride_value_slot,
    stride_value_head,
    stride_table_req,
    NUM_QUERIES_PER_KV: tl.constexpr,
    TOKENS: tl.constexpr,  # query tokens of a program
    ROWS: tl.constexpr,  # TOKENS * NUM_QUERIES_PER_KV, padded
    HEAD_SIZE: tl.constexpr,
    HEAD_SIZE_PADDED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE_SIZE: tl.constexpr,
):
    ### BEGIN SOLUTION
    request = tl.program_id(0)
    kv_head = tl.program_id(1)
    first_row = tl.load(query_start_loc_ptr + request)
    num_new = tl.load(query_start_loc_ptr + request + 1) - first_row
    first_token = tl.program_id(2) * TOKENS
    if first_token >= num_new:
        return  # the grid is as deep as the longest query
    seq_len = tl.load(seq_lens_ptr + request)
    # Row r of the tile: token r // NUM_QUERIES_PER_KV of this program, head r % NUM_QUERIES_PER_KV of this kv head.
    row = tl.arange(0, ROWS)
    token = first_token + row // NUM_QUERIES_PER_KV
    head = kv_head * NUM_QUERIES_PER_KV + row % NUM_QUERIES_PER_KV
    dim = tl.arange(0, HEAD_SIZE_PADDED)
    in_head = dim < HEAD_SIZE
    # Both halves: padding of the tile, and the end of this request's queries.
    in_tile = (row < TOKENS * NUM_QUERIES_PER_KV) & (token < num_new)
    mask = in_tile[:, None] & in_head[None, :]
    at = (first_row + token)[:, None] * stride_query_token + head[:, None] * stride_query_head + dim[None, :]
    query = tl.load(query_ptr + at, mask=mask, other=0.0)
    query_position = seq_len - num_new + token
    # Behind the last query of the tile nobody sees anything: this is where causal masking saves half of the work.
    end = tl.minimum(seq_len, seq_len - num_new + first_token + TOKENS)
    m = tl.full([ROWS], -1e30, tl.float32)
    l = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, HEAD_SIZE_PADDED], tl.float32)
    for start in range(0, end, TILE_SIZE):
        position = start + tl.arange(0, TILE_SIZE)
        held = position < seq_len
        table_at = block_table_ptr + request * stride_table_req + position // BLOCK_SIZE
        block = tl.load(table_at, mask=held, other=0).to(tl.int64)
        slot = position % BLOCK_SIZE
        key_at = block * stride_key_block + slot * stride_key_slot + kv_head * stride_key_head
        value_at = block * stride_value_block + slot * stride_value_slot + kv_head * stride_value_head
        mask_kv = held[:, None] & in_head[None, :]
        key = tl.load(key_cache_ptr + key_at[:, None] + dim[None, :], mask=mask_kv, other=0.0)
        value = tl.load(value_cache_ptr + value_at[:, None] + dim[None, :], mask=mask_kv, other=0.0)
        scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        visible = held[None, :] & (position[None, :] <= query_position[:, None])
        scores = tl.where(visible, scores, float("-inf"))
        m_new = tl.maximum(m, tl.max(scores, axis=1))
        alpha = tl.exp(m - m_new)
        p = tl.exp(scores - m_new[:, None])
        l = l * alpha + tl.sum(p, axis=1)
        acc = acc * alpha[:, None] + tl.dot(p.to(value.dtype), value, input_precision="ieee")
        m = m_new
    out = acc / tl.where(l == 0.0, 1.0, l)[:, None]
    tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=mask)
    ### END SOLUTION


def paged_causal_attention_triton(
    query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale
):
    """The same contract as `paged_causal_attention`."""
    ### BEGIN SOLUTION
    num_heads, head_size = query.shape[1:]
    block_size, num_kv_heads = key_cache.shape[1:3]
    num_queries_per_kv = num_heads // num_kv_heads
    output = torch.empty_like(query)
    # One number comes back from the GPU. vLLM keeps it on the host, as max_query_len.
    max_query_len = int((query_start_loc[1:] - query_start_loc[:-1]).max())
    tokens = max(1, 16 // num_queries_per_kv)
    _paged_causal_kernel[(len(seq_lens), num_kv_heads, triton.cdiv(max_query_len, tokens))](
        query,
        key_cache,
        value_cache,
        block_table,
        seq_lens,
        query_start_loc,
        output,
        scale,
        *query.stride()[:2],
        *key_cache.stride()[:3],
        *value_cache.stride()[:3],
        block_table.stride(0),
        NUM_QUERIES_PER_KV=num_queries_per_kv,
        TOKENS=tokens,
        ROWS=max(16, triton.next_power_of_2(tokens * num_queries_per_kv)),
        HEAD_SIZE=head_size,
        HEAD_SIZE_PADDED=triton.next_power_of_2(head_size),
        BLOCK_SIZE=block_size,
        TILE_SIZE=32,
    )
    return output
    ### END SOLUTION


# %% q10-triton nbgrader={"grade": true, "points": 8}
autograder.check("paged_causal_attention_triton", paged_causal_attention_triton)
### BEGIN HIDDEN TESTS
autograder.check("paged_causal_attention_triton", paged_causal_attention_triton, suite="hidden")
### END HIDDEN TESTS

# %% q10-triton-hints [markdown]
# <details><summary>Hint: one request is right, the batch is not</summary>
#
# Rows past the request's last token are stored into the next request's output, or past the end. The same mask guards load and
# store: <code>token &lt; num_new</code>.
#
# </details>
#
# <details><summary>Hint: where does the loop end?</summary>
#
# Behind the position of the tile's last query: <code>seq_len - num_new + first_token + TOKENS</code>, and not past
# <code>seq_len</code>. Up to <code>seq_len</code> is right as well, and does more than it has to.
#
# </details>
#
# More: `autograder.hint("paged_causal_attention_triton")`.

# %% q10-invariants [markdown]
# **What must hold, and what breaks if it doesn't**
#
# | must hold | or else |
# | --- | --- |
# | query i of n sits at seq_len − n + i | prefill is right, every later chunk is wrong |
# | a query sees its own token | the first token sees nothing: 0 / 0 |
# | the mask in every block, not in the last only | long chunks look into the future |
# | stores masked to this request's rows | the neighbour's output is overwritten, depending on who comes last |
#
# **Where this lives.** `kernels/prefill.py`; in vLLM 0.22.1
# `vllm/v1/attention/ops/triton_unified_attention.py:368` (`context_len = seq_len - cur_batch_query_len`) and
# `vllm/v1/attention/ops/triton_unified_attention.py:317` (`query_pos`).
#
# **Natural stop.**

# %% q10b-read [markdown]
# ## Part 5: Rung 5. One request, many programs
#
# *35 minutes, ●●●, question 10b: 8 points, and a bonus of 2.*
#
# One request of 32k tokens, 8 kv heads, decode. Your kernel has 8 programs. An H200 has 132 multiprocessors.

# %% predict-idle
# Predict: which share of the GPU is idle?
prediction_idle = None  # in percent

# %% q10b-idle
print("You predicted:", prediction_idle)
print(f"{100 * (132 - 8) / 132:.0f} % of the multiprocessors have nothing to do")

# %% q10b-timeline-read [markdown]
# So a sequence is cut into splits. Into how many? Below are a ragged batch and three answers: none; the same number for every
# request, 16, as vLLM's Triton backend has it; and the schedule of our own kernels (`kernels/schedule.py`), which gives every split an
# equal part of all tokens. **Guess first**, then press. Look for two ways to lose time: multiprocessors that wait, and programs that
# have hardly begun when they end.
#
# Then take "eight of one length" and guess again: what is the best schedule when there is enough to do without splits? Take "one long
# request" and find a number of fixed splits that is as good as the balanced ones. Is it still, with 8 multiprocessors?

# %% q10b-timeline
widgets.SplitTimeline()

# %% q10b-timeline-remark [markdown]
# <details><summary>After your guesses: what is there to see?</summary>
#
# Without splits the long request decides alone when the step ends. With 16 for everybody its tokens are well spread, but a short request
# is cut into crumbs: most of the time goes into beginning and ending. An equal part of all tokens cuts A into six and B into two, and
# leaves the others whole. In an even batch it cuts nothing, and then nothing has to be merged. With one long request 8 fixed splits are
# as good: 2 kv heads times 8 are 16 programs, one for each multiprocessor. With 8 multiprocessors they are two rounds, and 4 splits are
# the number: a fixed number fits one batch on one GPU.
#
# One more thing in the balanced picture: the eight multiprocessors in the middle wait although the parts are about equal. The short
# requests E and F come last, and there are only four programs of them to hand out. Nothing is free, the merge least of all: it is a
# second launch.
#
# </details>

# %% q10b-recorded-read [markdown]
# That was a model. On a GPU the next cell runs the same three schedules, each program with a look at the GPU's clock at its beginning and
# its end (`course/gpu_timeline.py`); without one it shows what an H100 recorded. Which schedule ends first? Where does the picture differ
# from the model's? One reason to look for: a real multiprocessor runs several programs at once.

# %% q10b-recorded
recorded_schedules.show([8192, 1536, 1024, 512, 512, 256])

# %% q10b-recorded-seen [markdown]
# <details><summary>Where it differs</summary>
#
# On the H100 the balanced schedule ends first, as in the model, but by a hair: 25.9 us, and 26.4 with 16 splits for everybody, where the
# model has 2368 against 4976 tokens. A real multiprocessor holds several programs, so that one begins while another reads, and the
# crumbs' beginnings cost little. Without splits it is 206 us: idle neighbours cannot help the one long program. The merge is not in the
# recording, and a fixed number of splits leaves it more partial states.
#
# </details>

# %% q10b-exercise-read [markdown]
# Lesson 1 has the way out: states merge. Split the sequence's blocks into `num_splits` shares, let a program walk over each, and write
# down what somebody needs to merge: the output so far, divided by `l`, and `lse = m + log(l)`. Then a second step takes, for each
# request and head, the mean of the outputs with weights e<sup>lse</sup>.
#
# Three traps: a share without a token (weight 0 times NaN is NaN, so give it zeros and −inf); rounding the share down (the rest is
# nobody's); a logarithm in base 2 that is merged in base e.
#
# ### Exercise
#
# Any `num_splits` from 1 on, more than there are blocks included. Partial states in float32.


# %% q10b-split-code nbgrader={"solution": true}
@triton.jit
def _split_kernel(
    query_ptr,
    key_cache_ptr,
    value_cache_ptr,
    block_table_ptr,
    seq_lens_ptr,
    split_out_ptr,  # [num_reqs, num_heads, num_splits, head_size] float32
    split_lse_ptr,  # [num_reqs, num_heads, num_splits] float32
    scale,
    num_splits,
    stride_query_req,
    stride_query_head,
    stride_key_block,
    stride_key_slot,
    stride_key_head,
    stride_value_block,
    stride_value_slot,
    stride_value_head,
    stride_table_req,
    NUM_HEADS: tl.constexpr,
    NUM_QUERIES_PER_KV: tl.constexpr,
    ROWS: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    HEAD_SIZE_PADDED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE_SIZE: tl.constexpr,
):
    ### BEGIN SOLUTION
    request = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    row = tl.arange(0, ROWS)
    dim = tl.arange(0, HEAD_SIZE_PADDED)
    in_head = dim < HEAD_SIZE
    head = kv_head * NUM_QUERIES_PER_KV + row
    in_rows = row < NUM_QUERIES_PER_KV
    mask = in_rows[:, None] & in_head[None, :]
    at = request * stride_query_req + head[:, None] * stride_query_head + dim[None, :]
    query = tl.load(query_ptr + at, mask=mask, other=0.0)
    seq_len = tl.load(seq_lens_ptr + request)
    # Blocks for each split, rounded up: no token is left over. Late splits may be empty, then first >= end.
    tokens_per_split = tl.cdiv(tl.cdiv(seq_len, BLOCK_SIZE), num_splits) * BLOCK_SIZE
    first = split * tokens_per_split
    end = tl.minimum(first + tokens_per_split, seq_len)
    m = tl.full([ROWS], -1e30, tl.float32)
    l = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, HEAD_SIZE_PADDED], tl.float32)
    # From here on the decode kernel, from first to end instead of 0 to seq_len.
    for start in range(first, end, TILE_SIZE):
        position = start + tl.arange(0, TILE_SIZE)
        held = position < end
        table_at = block_table_ptr + request * stride_table_req + position // BLOCK_SIZE
        block = tl.load(table_at, mask=held, other=0).to(tl.int64)
        slot = position % BLOCK_SIZE
        key_at = block * stride_key_block + slot * stride_key_slot + kv_head * stride_key_head
        value_at = block * stride_value_block + slot * stride_value_slot + kv_head * stride_value_head
        mask_kv = held[:, None] & in_head[None, :]
        key = tl.load(key_cache_ptr + key_at[:, None] + dim[None, :], mask=mask_kv, other=0.0)
        value = tl.load(value_cache_ptr + value_at[:, None] + dim[None, :], mask=mask_kv, other=0.0)
        scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        scores = tl.where(held[None, :], scores, float("-inf"))
        m_new = tl.maximum(m, tl.max(scores, axis=1))
        alpha = tl.exp(m - m_new)
        p = tl.exp(scores - m_new[:, None])
        l = l * alpha + tl.sum(p, axis=1)
        acc = acc * alpha[:, None] + tl.dot(p.to(value.dtype), value, input_precision="ieee")
        m = m_new
    # An empty split says so: zeros, and a weight of exp(-inf) = 0.
    safe = tl.where(l == 0.0, 1.0, l)
    lse = tl.where(l == 0.0, float("-inf"), m + tl.log(safe))
    state = (request * NUM_HEADS + head) * num_splits + split
    tl.store(split_out_ptr + state[:, None] * HEAD_SIZE + dim[None, :], acc / safe[:, None], mask=mask)
    tl.store(split_lse_ptr + state, lse, mask=in_rows)
    ### END SOLUTION


@triton.jit
def _merge_kernel(
    split_out_ptr,
    split_lse_ptr,
    out_ptr,
    num_splits,
    stride_out_req,
    stride_out_head,
    NUM_HEADS: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    HEAD_SIZE_PADDED: tl.constexpr,
):
    ### BEGIN SOLUTION
    request = tl.program_id(0)
    head = tl.program_id(1)
    dim = tl.arange(0, HEAD_SIZE_PADDED)
    in_head = dim < HEAD_SIZE
    first = (request * NUM_HEADS + head) * num_splits
    m = -1e30
    l = 0.0
    acc = tl.zeros([HEAD_SIZE_PADDED], tl.float32)
    # The update once more: a split takes the place of a key, its lse that of a score.
    for split in range(0, num_splits):
        lse = tl.load(split_lse_ptr + first + split)
        out = tl.load(split_out_ptr + (first + split) * HEAD_SIZE + dim, mask=in_head, other=0.0)
        m_new = tl.maximum(m, lse)
        alpha = tl.exp(m - m_new)
        weight = tl.exp(lse - m_new)
        l = l * alpha + weight
        acc = acc * alpha + weight * out
        m = m_new
    out = acc / tl.where(l == 0.0, 1.0, l)
    at = request * stride_out_req + head * stride_out_head + dim
    tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=in_head)
    ### END SOLUTION


def paged_split_kv_attention(query, key_cache, value_cache, block_table, seq_lens, scale, num_splits):
    """The same contract as `paged_online_attention`; each sequence is cut into `num_splits` shares of its blocks."""
    ### BEGIN SOLUTION
    num_reqs, num_heads, head_size = query.shape
    block_size, num_kv_heads = key_cache.shape[1:3]
    num_queries_per_kv = num_heads // num_kv_heads
    split_out = query.new_empty(num_reqs, num_heads, num_splits, head_size, dtype=torch.float32)
    split_lse = query.new_empty(num_reqs, num_heads, num_splits, dtype=torch.float32)
    output = torch.empty_like(query)
    _split_kernel[(num_reqs, num_kv_heads, num_splits)](
        query,
        key_cache,
        value_cache,
        block_table,
        seq_lens,
        split_out,
        split_lse,
        scale,
        num_splits,
        *query.stride()[:2],
        *key_cache.stride()[:3],
        *value_cache.stride()[:3],
        block_table.stride(0),
        NUM_HEADS=num_heads,
        NUM_QUERIES_PER_KV=num_queries_per_kv,
        ROWS=max(16, triton.next_power_of_2(num_queries_per_kv)),
        HEAD_SIZE=head_size,
        HEAD_SIZE_PADDED=triton.next_power_of_2(head_size),
        BLOCK_SIZE=block_size,
        TILE_SIZE=32,
    )
    _merge_kernel[(num_reqs, num_heads)](
        split_out,
        split_lse,
        output,
        num_splits,
        *output.stride()[:2],
        NUM_HEADS=num_heads,
        HEAD_SIZE=head_size,
        HEAD_SIZE_PADDED=triton.next_power_of_2(head_size),
    )
    return output
    ### END SOLUTION


# %% q10b-split nbgrader={"grade": true, "points": 8}
autograder.check("paged_split_kv_attention", paged_split_kv_attention)
### BEGIN HIDDEN TESTS
autograder.check("paged_split_kv_attention", paged_split_kv_attention, suite="hidden")
### END HIDDEN TESTS

# %% q10b-hints [markdown]
# <details><summary>Hint: NaN with more splits than blocks</summary>
#
# Some splits have nothing to do: <code>l</code> is 0 there. Store zeros (not 0 / 0) and <code>float("-inf")</code>.
#
# </details>
#
# <details><summary>Hint: two splits are right, three are not</summary>
#
# Print first and end of every split for 5 blocks. <code>tl.cdiv</code> rounds up; the last split ends at <code>seq_len</code>.
#
# </details>
#
# More: `autograder.hint("paged_split_kv_attention")`.

# %% q10b-race-read [markdown]
# **Bonus** (2 points). On a GPU, with one request of 16k tokens, your split kernel has to beat your own single pass: both timed in
# one run, in turn, after a warm-up, the cache of the GPU cleared before each run, and every timed output checked. Without a
# GPU nothing is timed, and nobody loses the bonus for that.

# %% q10b-race nbgrader={"grade": true, "points": 2}
autograder.check("split_kv_race", (paged_split_kv_attention, paged_online_attention_triton))
### BEGIN HIDDEN TESTS
autograder.check("split_kv_race", (paged_split_kv_attention, paged_online_attention_triton), suite="hidden")
### END HIDDEN TESTS

# %% q10b-see-read [markdown]
# Who reads what, now? One line for each program of the splitting kernel: its blocks of the cache.

# %% q10b-see
batch = small_batch([22], num_heads=2, num_kv_heads=1)
print("block table:", batch[3][0].tolist())
names = ("query", "key_cache", "value_cache", "block_table", "seq_lens")
with course.record(**dict(zip(names, batch))) as recording:
    paged_split_kv_attention(*batch, scale, num_splits=4)
readers = {}
for read in recording.slots("key_cache"):
    program = tuple(int(read[axis]) for axis in "xyz")
    readers.setdefault(program, {}).setdefault(int(read["block"]), []).append(int(read["slot"]))
for program, blocks in readers.items():
    print(
        "program",
        program,
        "reads",
        ", ".join(f"block {block}: {len(set(slots))} slots" for block, slots in blocks.items()),
    )

# %% q10b-see-view-read [markdown]
# Step through it. The lines above say which blocks each program reads, and name only programs that read one. Predict: what does the
# fourth program load and store, if it is not among them, and how many of the third one's stores go to the output? Choose each and look.
# Then choose the tensor of partial outputs: who writes it, and which line of which kernel reads it again? Those bytes are the price of
# splitting.

# %% q10b-see-view
recording.least = course.recording.least_bytes(batch[4], batch[1], batch[2])
widgets.MemoryView(recording, batch[3], batch[4])

# %% q10b-invariants [markdown]
# **What must hold, and what breaks if it doesn't**
#
# | must hold | or else |
# | --- | --- |
# | shares cover every block once | tokens missing, or counted twice |
# | an empty share has lse = −inf and an output of zeros | NaN, as soon as a short request meets many splits |
# | weights e<sup>lse</sup>, measured against the largest lse | long shares outweigh important ones; overflow |
# | the base of writer and reader agree | almost right, in every head |
#
# **Where this lives.** `kernels/decode.py` and `kernels/merge.py`. In vLLM 0.22.1 the third dimension of the grid is
# `vllm/v1/attention/ops/triton_unified_attention.py:286` (`segm_idx`), the merge
# `vllm/v1/attention/ops/triton_unified_attention.py:646` (`reduce_segments`), and the number of splits is fixed:
# `vllm/v1/attention/backends/triton_attn.py:55` (`NUM_PAR_SOFTMAX_SEGMENTS`).

# %% roofline-read [markdown]
# ## Part 6: Under the roof
#
# *10 minutes, ●○○, nothing graded.*
#
# A kernel takes at least as long as its bytes need through the memory, and as its arithmetic needs on the tensor cores. The **roof** is
# the larger of the two. Decode does about 4 operations for every byte, and the H200's roof bends only at about 160: bytes decide.
#
# On a GPU the next cell times your kernels beside the rungs of `kernels`, on one long request and on many short ones. Without one it
# shows what the course measured on an H200, and says so. Beside the roof stands the **ladder**: what share of the roof each kernel
# reaches. Before you run it, say for which of the two batches cutting a sequence helps, and why not for the other.

# %% roofline
roofline.show(
    {
        "yours, one pass": paged_online_attention_triton,
        "yours, 32 splits": lambda *arguments: paged_split_kv_attention(*arguments, num_splits=32),
    }
)

# %% roofline-seen [markdown]
# <details><summary>For which batch it helps, and why not for the other</summary>
#
# One request of 32k tokens is 8 programs without splits, one for each kv head, and a hundred multiprocessors have nothing to do. On the
# H200 packed heads reach 3 % of the roof there, splits 73 %. 64 requests are 512 programs, enough for all of them, and each is as long as the
# others. Nothing is left to win by cutting, and the schedule and the merge cost something: there the rung without splits is a little ahead,
# 127 against 129 us.
# Why does <code>paged_decode</code> not take that rung then? The shapes are the same when one of the 64 requests is long and the others are
# short, and lengths are on the GPU, where nobody waits to read them. With 128 requests of very different lengths that rung took
# twice as long as <code>paged_decode</code> (<code>bench/results/nvidia-h200.md</code>, decode 128 ragged).
#
# </details>

# %% remember [markdown]
# ### What to remember
#
# - **One loop, done for more at once.** Heads, requests, query tokens and splits are dimensions of the grid.
# - **Nothing but the table look-up may know where a block lies.** That is scatter invariance, and all that paging rests on.
# - **Guard what you do not own**: slots past the end, dimensions past the head size, table entries past the last block.
# - **kv head = head // num_queries_per_kv; query i of n sits at seq_len − n + i.**
# - **Float32 for m, l, acc; 64 bits for block offsets.** Small tests never notice.
# - **Read each key once per kv head.** Count it, do not guess.
# - **Partial states merge by e<sup>lse</sup>**, an empty one being zeros and −inf.
# - **Full blocks hide a wrong order, kind numbers hide overflow, zeros hide stray reads.** Test with tails, large scores, NaN.
#
# ### Glossary
#
# | here | elsewhere | meaning |
# | --- | --- | --- |
# | split | segment (vLLM's Triton kernel), partition | a share of one sequence, for a program of its own |
# | split-KV | Flash-Decoding, 3D kernel (vLLM), stream-K for shares of equal length | several programs for one sequence |
# | tile, `TILE_SIZE` | `BLOCK_N` | tokens that a program works on at a time; not a block of the cache |
# | `num_queries_per_kv` | GQA ratio, group size | query heads that share a kv head |
# | chunk | partial prefill | the part of a prompt that one step computes |
#
# ### Next
#
# Lesson 4 measures all this under load, adds a kind of attention that nobody has written yet, and hunts for faults in kernels that
# you cannot look into. Your `find_contract_breach` is a beginning.
#
# Before you hand in: **Kernel → Restart Kernel and Run All Cells**, then **Validate**.
