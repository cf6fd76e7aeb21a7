# %% title [markdown]
# # Lesson 4: Design like a staff engineer
#
# You can build a kernel. Here you decide: which one is faster and for whom, how a kind of attention that nobody has written yet
# is brought in, and which of two kernels is lying.
#
# 1. a benchmark that can be wrong, and says so (question 11);
# 2. a new backend: latent-compressed KV against the contract (question 12);
# 3. a debugging path: one backend is right, another is not, and you cannot look inside (question 13).
#
# **After it you can**
# - plan a serving benchmark, say what would refute its hypothesis, and conclude no more than its spread supports;
# - bring a new attention backend up against vLLM's three classes, and say what of the rest serves it unchanged;
# - find a fault in a kernel by differential testing, make the failing case small, and name it.
#
# | part | what you do | time | difficulty |
# | --- | --- | --- | --- |
# | 1 | plan a benchmark, run it, conclude | 60 min | ●●○ |
# | 2 | three classes for latent-compressed KV | 60 min | ●●● |
# | 3 | hunt faults in closed backends | 50 min | ●●● |
# | 4 | grade yourself; where to reread | 10 min | ●○○ |
#
# About three hours. After each part there is a **natural stop**.

# %% how-to-work [markdown]
# **No GPU needed.** Without one, Part 1 replays kernel times that the course measured on a GPU, under the same scheduler, and says so;
# Parts 2 and 3 run in torch and in Triton's interpreter.
#
# **Predict first**, write it down, then reveal. **Check as often as you like.** **Ten minutes stuck, not an hour**: each
# exercise has folds below it and `autograder.hint("...")` in a new cell. Taking the last hint is fine.

# %% setup nbgrader={"locked": true}
import torch

import autograder
import course
import kernels  # before anything that loads triton: without a GPU, this turns its interpreter on

device = kernels.device()
print("torch", torch.__version__)
print("Triton kernels run on:", kernels.describe())

# %% q11-read [markdown]
# ## Part 1: A benchmark that can be wrong

# %% q12-read [markdown]
# ## Part 2: A new backend

# %% q13-read [markdown]
# ## Part 3: Garbage
#
# *50 minutes, ●●●.*
#
# > **Garbage at long contexts since the upgrade.** One of our users pastes a contract of 20 pages and gets word salad. Short
# > questions are fine. We replayed the prompt on a test machine: fine too. Before the upgrade nobody complained. Nothing else was
# > changed, only the attention backend.
#
# No crash, no NaN, no stack trace: attention that is wrong still gives words. You have the backend from before the upgrade, the one
# from after it, and no time to read 2000 lines of kernel. What you can do is **differential testing**: the same input through
# both, the first difference, the smallest input that shows it.
#
# 1. reproduce; 2. same inputs through two backends; 3. the first difference; 4. minimise; 5. name; 6. a regression test; 7. report.
#
# First you walk this path once. Then you write the tester and the minimiser, and find out what is wrong with ten backends that
# you cannot look into.

# %% q13-setup nbgrader={"locked": true}
from course import differential
from course.closed_backends import NAMES, closed

Case = differential.Case
truth = differential.reference  # float64 throughout: what is right
before, after = closed("slate"), closed("basalt")

# %% q13-case-read [markdown]
# ### A case
#
# A backend here is a function of a `Case` and gives (output, lse) for each of its steps. A case is plain data: which requests
# stand in which step, how many tokens each has in the cache, how many of those are this step's queries, and where its blocks are.
# Its numbers are drawn from its seed, so that two backends get the same bits.
#
# - `Case.of([9, 5])` is one step with two requests, 9 and 5 tokens, a query token each; `Case.of([9, 5], [4, 1])` gives the first
#   four.
# - Fields: `num_heads`, `num_kv_heads`, `block_size`, `window`, `layout` ("NHD", "HND"), `dtype`, `kv_dtype` ("auto", "fp8") with
#   `k_scale` and `v_scale`, `magnitude`, `unowned` (what nobody's slots hold: "nan", "zeros", "large"), `lowest_block`, `seed`.
# - `case.then({0: 10, 1: 6})` adds a step. Who is left out is not in it; `moved=[0]` gives request 0 new blocks, as after a
#   preemption.

# %% q13-case
case = Case.of([9, 6], [4, 1], num_heads=4, num_kv_heads=2).then({0: 10, 1: 7})
print(differential.describe(case))
output, lse = before(case)[0]
print("step 0: output", list(output.shape), "lse", list(lse.shape))

# %% predict-alone
# The user's prompt, alone, through both backends, as on the test machine. Do they differ? And in a batch behind a short request?
prediction_alone = None  # (True or False, True or False)

# %% q13-alone
print("You predicted:", prediction_alone)
alone = Case.of([300], num_heads=4, num_kv_heads=2, unowned="zeros")
batch = Case.of([30, 12, 300], num_heads=4, num_kv_heads=2, unowned="zeros")
for name, tried in (("alone", alone), ("in a batch", batch)):
    print(f"{name:11} before: {differential.compare(before, truth, tried) or 'as the truth'}")
    print(f"{name:11} after:  {differential.compare(after, truth, tried) or 'as the truth'}")

# %% q13-alone-remark [markdown]
# **Reproduce** what the user had and not what is easy: the batch is a part of the input. Alone, nothing is wrong with the prompt; behind
# a short request everything is.
#
# **The first difference** says where to look: which step, request, query token, head and dim, where that token lies, and how far off
# it is. "In budgets": float32 sums in another order are not the same bits, so equality is the wrong question. The budget is how far a right
# backend may be off, from the size of the scores and values and the dtype's ε. It was measured, not guessed: over 60
# random cases no right backend used more than half of it.

# %% predict-bits
# Two right backends, the same case: the same bits?
prediction_bits = None  # True or False

# %% q13-bits
print("You predicted:", prediction_bits)
ones, others = before(batch)[0][0], closed("opal")(batch)[0][0]
exact = truth(batch)[0][0]
allowed = differential.budget(batch, 0)[0]
print("slate and opal the same bits:", bool((ones == others).all()))
for name, found in (("slate", ones), ("opal", others), ("indigo", closed("indigo")(batch)[0][0])):
    print(f"{name:7} off by at most {(found - exact).abs().max().item():.1e}; the budget is {allowed:.1e}")

# %% q13-cuts-read [markdown]
# ### Smaller
#
# Three requests, 4 heads, 342 tokens: too much to think about. Cut something, ask whether the case still fails, keep the cut if it
# does. **One thing at a time**, and what cannot be cut is what the fault needs. Guess each line before you run it.

# %% q13-cuts
cuts = {
    "as it was": batch,
    "without the second request": Case.of([30, 300], num_heads=4, num_kv_heads=2, unowned="zeros"),
    "without the first two": Case.of([300], num_heads=4, num_kv_heads=2, unowned="zeros"),
    "one head": Case.of([30, 300], num_heads=1, num_kv_heads=1, unowned="zeros"),
    "a first request of 1 token": Case.of([1, 300], num_heads=1, num_kv_heads=1, unowned="zeros"),
    "150 tokens": Case.of([1, 150], num_heads=1, num_kv_heads=1, unowned="zeros"),
    "75 tokens": Case.of([1, 75], num_heads=1, num_kv_heads=1, unowned="zeros"),
    "37 tokens": Case.of([1, 37], num_heads=1, num_kv_heads=1, unowned="zeros"),
}
for name, cut in cuts.items():
    verdict = "fails" if differential.compare(after, truth, cut) else "passes"
    print(f"{name:28} size {differential.size(cut):4}  {verdict}")

# %% q13-name-it [markdown]
# Two requests are needed, one head is enough, and somewhere between 37 and 75 tokens there is a limit. A limit is a hypothesis, and a
# hypothesis predicts: if each request were given as many **splits** as the first one needs, a long first request would make
# a long second one right again.

# %% predict-boundary
# One request of 65 tokens in front, one of 128 behind it. Right or wrong?
prediction_boundary = None  # "right" or "wrong"

# %% q13-boundary
print("You predicted:", prediction_boundary)
lengths = (1, 63, 64, 65, 128, 129, 192, 193)
print("rows: tokens of the first request; columns: of the second; X: the second is wrong")
print("     " + "".join(f"{second:5}" for second in lengths))
for first in lengths:
    fails = [differential.compare(after, truth, Case.of([first, second])) for second in lengths]
    print(f"{first:5}" + "".join(f"{'X' if found else '.':>5}" for found in fails))

# %% q13-boundary-remark [markdown]
# The steps of the staircase are at 64, 128 and 192: splits have 64 tokens, and how many there are is computed **once for
# the batch, from its first request**. What lies past the last split is left out, and the newest tokens lie there. That is the name:
# a *split cap*. One prediction that came true is worth more than ten cases that fail.
#
# **The regression test** fails on the faulty backend, passes on the right one, and says what it is about. It is as small as the
# minimal case, with a neighbour on each side of the boundary.


# %% q13-regression
def test_every_request_gets_its_own_number_of_splits(backend):
    for second in (64, 65):
        found = differential.compare(backend, truth, Case.of([1, second]))
        assert found is None, f"{second} tokens behind a request of 1: {found}"


test_every_request_gets_its_own_number_of_splits(before)
print("before: passes")
try:
    test_every_request_gets_its_own_number_of_splits(after)
except AssertionError as error:
    print("after: fails,", error)

# %% q13-issue-read [markdown]
# **The report**, as somebody can act on it. What it has: what is wrong, since when, the smallest input, what is nearly the same and
# right, the guess marked as a guess, the test, the way around. What it does not have: the word "sometimes".

# %% q13-issue
least = Case.of([1, 65], num_heads=1, num_kv_heads=1, unowned="zeros")
nearly = {"64 tokens": Case.of([1, 64]), "the longer one in front": Case.of([65, 1]), "alone": Case.of([65])}
print("Wrong output for a request that needs more splits than the first of its batch")
print(
    "Since the upgrade; the backend from before is right:",
    differential.compare(before, truth, least) is None,
)
print("Minimal case,", differential.describe(least))
print("Seen:", differential.compare(after, truth, least))
print(
    "Right with:",
    ", ".join(name for name, it in nearly.items() if not differential.compare(after, truth, it)),
)
print("Likely: the number of splits (of 64 tokens) is computed once for the batch, from its first request.")
print("Test: test_every_request_gets_its_own_number_of_splits. Until it is fixed: the backend from before.")

# %% q13-faults-read [markdown]
# ### Ten faults that were shipped
#
# Each of the closed backends is right, or has one of these. Each is modelled on a real report; read one or two of them afterwards. (Some are
# still open, and not each was confirmed by a maintainer: a report is a claim, and yours should be easy to confirm.)
#
# | word | what is wrong | reported, for example |
# | --- | --- | --- |
# | `stale-tail` | slots that the request never wrote are read | [flash-attention #1745](https://github.com/Dao-AILab/flash-attention/issues/1745): FA3 lets NaN in the cache's padding into the output, FA2 did not |
# | `window` | the window is one token too long or too short | [transformers #39408](https://github.com/huggingface/transformers/issues/39408): `window_size` counts the tokens before the query's own |
# | `offset-32-bit` | block · stride overflows | [vLLM #47671](https://github.com/vllm-project/vllm/pull/47671): page offsets of `triton_decode_attention` in int32 turn negative above page 7767 or so |
# | `gqa-map` | a query head reads the wrong kv head | [HipKittens #22](https://github.com/HazyResearch/HipKittens/pull/22): right only where group size and number of kv heads agree |
# | `layout` | an HND cache is read as NHD | [vLLM #49012](https://github.com/vllm-project/vllm/issues/49012): a cache write takes `block_size` from the wrong dimension; silent with 8 kv heads |
# | `lse-base` | natural and base-2 logarithms are mixed up | [SGLang #35045](https://github.com/sgl-project/sglang/pull/35045): a base-2 lse goes into a merge by e; on its path for prefixes of 8192 tokens and more |
# | `split-cap` | what lies past the last split is left out | [OpenVINO #38034](https://github.com/openvinotoolkit/openvino/pull/38034): one number of partitions for the batch; a shorter request loses its newest tokens |
# | `stale-block-table` | a row is not renewed after a preemption | [vLLM #46595](https://github.com/vllm-project/vllm/pull/46595): a KV connector kept a list of its own of who was preempted, and appended block ids where they should replace, or the other way round (the nearest that we found: beside the kernel and not in it) |
# | `zero-length` | a request without tokens is forgotten | [aiter #1442](https://github.com/ROCm/aiter/pull/1442): output and lse NaN for a request without keys |
# | `fp8-scale` | a scale of an fp8 cache is forgotten | [SGLang #20705](https://github.com/sgl-project/sglang/pull/20705): scales from a file silently taken for 1 on some backends |
#
# A cache of 2<sup>31</sup> blocks needs no memory here: a case says which block numbers its requests have, and only those blocks exist. A
# backend that computes in 32 bits comes out at another number, and so at a block that is not the request's.
#
# Where vLLM 0.22.1 takes care of some of them: `vllm/v1/attention/backends/flash_attn.py:621` (`sliding_window - 1, 0`),
# `vllm/v1/attention/ops/triton_unified_attention.py:116` (`stride_cache_0: tl.int64`), `vllm/v1/attention/ops/common.py:115`
# (`is_lse_base_on_e`), `vllm/v1/worker/gpu_model_runner.py:1370` (`req_state.block_ids = new_block_ids`).

# %% q13-everyday-read [markdown]
# The test that let them through had everyday cases: full blocks, as many kv heads as query heads, one step, zeros in what nobody owns.

# %% q13-everyday
everyday = {f"everyday case {seed}": differential.everyday(seed) for seed in range(3)}
print(differential.table({name: closed(name) for name in NAMES}, everyday, truth))

# %% q13-detect-read [markdown]
# Fourteen backends, all of them right, says the test. Four are.
#
# ### Exercise: who is faulty?
#
# Write `is_faulty(backend)`: True for each backend with a fault, False for each right one. It is tried on backends that this notebook does not
# have: every fault of the table in several variants (other widths, other limits, the window in chunks only, the lse alone, ...), on right
# ones that add up in other orders, round to float16 or run in Triton. One point for each kind of fault of which every variant is
# found; **none at all if a right backend is accused**, for a tester that cries wolf is switched off.
#
# Every fault shows on a case with at most 320 tokens a request, 12 heads, 4 steps. A backend answers 1500 calls. In grading it
# computes elsewhere: you get its results and nothing else.


# %% q13-detect-code nbgrader={"solution": true}
def is_faulty(backend):
    """Whether `backend`, a function of a Case, has a fault: True or False."""
    ### BEGIN SOLUTION
    of = Case.of
    cases = [
        of([8, 12]),  # full blocks: what comes after them must not count
        of([13, 6, 1]),  # tails, with NaN in what nobody owns
        of([13, 9], [5, 9]),  # chunks of queries
        of([14, 30], window=5),
        of([14, 30], [6, 7], window=5),  # each query of a chunk has its own window
        of([13, 6], num_heads=6, num_kv_heads=2),  # three query heads for a kv head: no power of two
        of([13, 6], num_heads=4, num_kv_heads=2, layout="HND"),
        of([5, 300]),  # long, and behind a short one
        of([13], lowest_block=2**27 + 5),  # past 2**32 elements
        of([0, 6, 5, 7], [1, 1, 0, 1]),  # no tokens; no queries
        of([13, 7], kv_dtype="fp8", k_scale=0.25, v_scale=2.0),  # not 1, and not the same
        of([9, 6])
        .then({1: 7})
        .then({0: 10, 1: 8}, moved=[0]),  # request 0 is preempted and comes back elsewhere
        of([40, 7], dtype="float16"),
    ]
    return any(differential.compare(backend, differential.reference, case) is not None for case in cases)
    ### END SOLUTION


# %% q13-detect nbgrader={"grade": true, "points": 10}
autograder.check("is_faulty", is_faulty)
### BEGIN HIDDEN TESTS
autograder.check("is_faulty", is_faulty, suite="hidden")
### END HIDDEN TESTS

# %% q13-detect-hints [markdown]
# <details><summary>Hint: where do I start?</summary>
#
# With the table of faults. For each row, write the one case on which it would show. A loop over these cases with
# <code>differential.compare</code> is the whole function.
#
# </details>
#
# <details><summary>Hint: a fault is not found</summary>
#
# The message says which, and on what kind of input it shows. Many need two things at once: several kv heads <i>and</i> HND; a window
# <i>and</i> a chunk; three steps, the middle one without the request. What hides faults: zeros where NaN could be, equal scales, powers
# of two, the longest request first.
#
# </details>
#
# <details><summary>Hint: a right backend is accused</summary>
#
# You compare bits, or with a tolerance of your own. Ask the budget: <code>differential.compare</code> does.
#
# </details>
#
# More: `autograder.hint("is_faulty")`.

# %% q13-minimise-read [markdown]
# ### Exercise: the smallest failing case
#
# `minimise(backend, case)` is given a case on which the backend fails and returns a **minimal** one: the backend still fails, and on
# none of `differential.smaller(yours)`, which are all the cases that are one cut smaller: a step, a request, heads, tokens, query tokens, a field
# made plain. Each has a smaller `differential.size`: tokens and queries and blocks and requests in every step, steps, heads, and
# fields that are not plain (no window, NHD, no fp8, small block numbers, ...). You get six backends and six crowded cases, a point for each;
# 1500 calls a case.


# %% q13-minimise-code nbgrader={"solution": true}
def minimise(backend, case):
    """A minimal case on which `backend` fails, made from `case`, on which it does."""

    ### BEGIN SOLUTION
    def fails(candidate):
        return differential.compare(backend, differential.reference, candidate) is not None

    while True:
        for less in differential.smaller(case):
            if fails(less):
                case = less
                break
        else:  # no cut is left that still fails
            return case
    ### END SOLUTION


# %% q13-minimise nbgrader={"grade": true, "points": 6}
autograder.check("minimise", minimise)
### BEGIN HIDDEN TESTS
autograder.check("minimise", minimise, suite="hidden")
### END HIDDEN TESTS

# %% q13-minimise-hints [markdown]
# <details><summary>Hint: the shape of it</summary>
#
# Take the first smaller case that still fails, and start again from it. When none does, you are done. It ends because each one has a
# smaller size.
#
# </details>
#
# <details><summary>Hint: the returned case passes</summary>
#
# What was tried last is, as a rule, a case that passes. Return the last one that failed.
#
# </details>
#
# More: `autograder.hint("minimise")`.

# %% q13-diagnose-read [markdown]
# ### Exercise: name it
#
# Now the fourteen: what is wrong with each? A word of the table for each name, or `"right"`. The minimal case tells nearly
# everything: *what is left that is not plain is what the fault needs*. The lengths that are left are its limits. And the difference says
# whether output, lse or both are wrong.
#
# The next cell writes down the cases that your `is_faulty` tries, and minimises the first that fails.


# %% q13-diagnose
class Watched:
    """A backend that remembers the cases it was called with."""

    def __init__(self, backend):
        self.backend, self.cases = backend, []

    def __call__(self, case):
        self.cases.append(case)
        return self.backend(case)


def show_minimal(name):
    watched = Watched(closed(name))
    if not is_faulty(watched):
        return print(f"{name}: nothing found\n")
    failing = next(case for case in watched.cases if differential.compare(closed(name), truth, case))
    least = minimise(closed(name), failing)
    print(f"{name}: {differential.describe(least)}")
    print(f"  {differential.compare(closed(name), truth, least)}\n")


try:
    for name in NAMES:
        show_minimal(name)
except (NotImplementedError, StopIteration):
    print("Write is_faulty and minimise first.")

# %% q13-name-code nbgrader={"solution": true}
q13_diagnosis = dict.fromkeys(NAMES)  # for example {"agate": "window", "beryl": "right", ...}
### BEGIN SOLUTION
q13_diagnosis = {
    "agate": "lse-base",  # one long request, output wrong and lse right: weights
    "beryl": "right",
    "cobalt": "stale-block-table",  # three steps, away in the middle one, back in another block
    "dune": "stale-tail",  # one token, nothing odd, a tail of three slots
    "ember": "gqa-map",  # 6 heads on 2, in NHD
    "fjord": "right",
    "gneiss": "fp8-scale",  # v_scale is left
    "hazel": "offset-32-bit",  # high block numbers
    "indigo": "right",
    "jasper": "window",  # window and one token more than it
    "kelp": "split-cap",  # one long request, output and lse wrong: 129 tokens, so the cap is 128
    "larch": "zero-length",  # an empty neighbour
    "marl": "layout",  # HND and two kv heads
    "opal": "right",
}
### END SOLUTION

# %% q13-name nbgrader={"grade": true, "points": 6}
autograder.check("q13_diagnosis", q13_diagnosis)
### BEGIN HIDDEN TESTS
autograder.check("q13_diagnosis", q13_diagnosis, suite="hidden")
### END HIDDEN TESTS

# %% q13-name-hints [markdown]
# <details><summary>Hint: two backends fail on one long request and nothing else</summary>
#
# Look at the lse. A part that is left out is missing from the sum of exponentials, so the lse is too small. Parts that are weighted wrongly
# leave the lse right.
#
# </details>
#
# <details><summary>Hint: NaN everywhere</summary>
#
# NaN says that something was read that nobody owns, and not why. Set <code>unowned="zeros"</code>, make the case minimal again, and see what
# is left: a tail, a second step, an empty neighbour, a high block number.
#
# </details>
#
# More: `autograder.hint("q13_diagnosis")`. The points are for the pairs of faulty backends; a right one that is accused costs them all.

# %% q13-explain-read [markdown]
# **In your own words** (6 points, graded by hand). Your team wants to make a backend the default that is 15% faster. What does this part
# imply? Say: (1) when a faster backend may be the default, for whom, and what happens to requests that it does not support; (2) what the suite
# has to hold that the everyday test did not, and why "the outputs look fine" is no test; (3) what the fallback is, and how you would notice in
# production that it is needed; (4) what batch invariance has to do with it.

# %% q13-explain [markdown] nbgrader={"grade": true, "solution": true, "points": 6}
# ### BEGIN SOLUTION
# **Model answer.** Being faster decides between backends that are right, and right means: within the error budget of the reference on
# every kind of input that it declares to support. It may be the default for exactly that domain (head sizes, dtypes, layouts, window,
# fp8, GPU); outside it the selector has to take another backend, with a reason, or refuse; it must never compute something near. In vLLM that is
# `validate_configuration`'s list of reasons, and an order: `vllm/platforms/cuda.py:79` (`_get_backend_priorities`).
#
# The everyday test had one kind of input. Each fault here shows on one kind alone: so the suite is a list of kinds (tails with NaN,
# chunks with a window, odd groups, HND, empty requests, several steps with preemption, high block numbers, scales that differ, long
# behind short, the lse), random cases on top, a faulty backend for each kind that the suite must catch, and right ones with other
# rounding that it must not accuse. Fluent text is no evidence: attention that loses a few tokens or weights them slightly wrongly still gives words.
#
# The fallback is the backend from before: kept, selectable by a flag, tested by the same suite, so that going back takes minutes. One notices
# by shadow runs (a share of the traffic through both, differences counted in budgets), canaries, and counts of NaN and of quality, by batch
# composition and context length, because that is where faults hide.
#
# Batch invariance: in the worked example the prompt alone was fine, and wrong in a batch. A backend whose bits depend on the batch cannot be
# checked by replaying one request, and every replay differs a little anyway, so that a real fault hides in the noise. Where the same
# request gives the same bits in every batch, a user's report can be replayed alone, and any difference is a fault. It costs speed (fixed splits and
# tiles), so it is a mode rather than the default, and the mode in which to test: `vllm/v1/attention/selector.py:153`
# (`supports_batch_invariance`).
#
# **Rubric, 6 points**
# - *Default* (2): right before fast, for a declared domain (1); what lies outside is refused or handed on, never computed approximately (1).
# - *Suite* (2): kinds of input by name, at least four that the everyday test lacked (1); right backends with other rounding must
#   pass, or faults planted that must be caught (1).
# - *Fallback* (1): an older backend that is kept and can be chosen, and a signal by which one notices.
# - *Batch invariance* (1): output that depends on the batch hides faults and spoils replay; what it costs.
# ### END SOLUTION

# %% q13-reading [markdown]
# **To read on.** The reports in the table above, first [OpenVINO #38034](https://github.com/openvinotoolkit/openvino/pull/38034) (like your worked
# example: one number of partitions for the batch) and [vLLM #47671](https://github.com/vllm-project/vllm/pull/47671) (how the block number was found at which it
# begins). Then [flash-attention #2374](https://github.com/Dao-AILab/flash-attention/issues/2374) (why NaN passes a mask: 0 · NaN),
# [vLLM #936](https://github.com/vllm-project/vllm/pull/936) (the same, in vLLM's first kernel),
# [FlashInfer #4485](https://github.com/flashinfer-ai/flashinfer/issues/4485) (two kernels of one library, two bases of the lse),
# [FlashInfer #4484](https://github.com/flashinfer-ai/flashinfer/issues/4484) (what an empty request should give),
# [vLLM #50427](https://github.com/vllm-project/vllm/issues/50427) (the same overflow: a crash or silently wrong, by what is mapped there),
# [vLLM #47248](https://github.com/vllm-project/vllm/pull/47248) (what groups of 7 query heads ask of a kernel with tiles of 8).
# The tools of this part: `course/differential/`, about 700 lines with their comments.
#
# **Natural stop.**

# %% remember [markdown]
# ### What to remember
#
# - **Same input, two backends, the first difference**: no source needed. The batch is a part of the input.
# - **A fault shows on one kind of input.** A test is a list of kinds; what is kind hides: full blocks, zeros, powers of two, one step.
# - **Allow the budget and not a bit more.** A tester that accuses right backends is switched off.
# - **What is left in a minimal case names the fault.** Then predict, and let the prediction decide.
