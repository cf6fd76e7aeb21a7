# %% title [markdown]
# # Lesson 1: Warm-up
#
# Attention is one formula. Serving it to a thousand people at once is bookkeeping: where is each token's key,
# where does the next one go, and how do we add up a row that never fits in one place?
#
# This lesson answers the first three questions of the course:
#
# 1. Attention is one operation. Why does vLLM have many backends for it?
# 2. What metadata does a paged attention kernel need, and what is each piece for?
# 3. What is online softmax, and which problem does it solve?
#
# **After it you can**
# - predict which backend vLLM 0.22.1 picks for a deployment, and say why it refused the others;
# - build the metadata of a batch by hand: block table, slot mapping, lengths;
# - write the softmax that every fast attention kernel runs on, and merge two halves of it.
#
# | part | what you do | time | difficulty |
# | --- | --- | --- | --- |
# | 0 | set up | 3 min | |
# | 1 | why paging: read, predict, look | 12 min | ●○○ |
# | 2 | question 1: eight deployments, eight verdicts | 20 min | ●●○ |
# | 3 | question 2: three pieces of metadata | 25 min | ●●○ |
# | 4 | question 3: online softmax | 27 min | ●●● |
# | 5 | what to remember, glossary | 3 min | |

# %% how-to-work [markdown]
# ## Part 0: How to work with this notebook
#
# **No GPU needed.** Without one, the Triton kernels run in Triton's interpreter on the CPU: slow, but step by step
# the same arithmetic. Everything in this lesson is small enough for that. With a GPU the same cells run on it.
#
# **Predict first.** Now and then a cell asks for a guess. Write one down, then run the cell that reveals the
# answer. Nobody grades guesses. A wrong guess that you wrote down teaches more than a right answer that you read.
#
# **Check as often as you like.** Cells with `autograder.check(...)` try your code on a set of cases and say what is
# wrong first. Grading later uses the same family of cases with fresh numbers.
#
# **When you are stuck**, for ten minutes and not for an hour: open the first hint. There are folds below each
# exercise, and `autograder.hint("build_metadata")` in a new cell prints a hint; call it again for the next one.
# The last hint nearly gives the answer away. Taking it is fine.
#
# Cells that call your functions stop with `NotImplementedError` until you have written them. That is expected.
# Run the first cell now.

# %% setup nbgrader={"locked": true}
import inspect
import math

import torch

import autograder
import course
import kernels  # before anything that loads triton: without a GPU, this turns its interpreter on
from course import backend_table, deployments, plots, widgets
from course.vllm import rules as vllm_rules
from kernels import reference

print("torch", torch.__version__)
print("Triton kernels run on:", kernels.describe())

# %% why-paging [markdown]
# ## Part 1: Why paging
#
# *12 minutes, ●○○, nothing graded.*
#
# A language model writes one token at a time. To write the next one, attention compares it with **every** token
# before it: it needs their keys and values, in every layer. Computing these again for each new token would be
# absurd, so the server keeps them. That store is the **KV cache**.
#
# How large is it? Take a model shaped like Llama 3 8B: 32 layers, 8 key/value heads (the 32 query heads share
# them four to one), 128 numbers per head, 2 bytes per number.

# %% kv-bytes
num_layers, num_kv_heads, head_size, bytes_per_number = 32, 8, 128, 2

# The first 2 is for key and value.
bytes_per_token = 2 * num_layers * num_kv_heads * head_size * bytes_per_number
print(f"one token:               {bytes_per_token // 2**10} KiB")
print(f"one request of 8192:     {8192 * bytes_per_token / 2**30:.0f} GiB")

cache_tokens = 40 * 2**30 // bytes_per_token
print(f"a 40 GiB cache holds:    {cache_tokens:,} tokens")

# %% contiguous [markdown]
# 128 KiB for a token of text that fits in four bytes. Memory for these, not arithmetic, is usually what limits
# how many people one GPU serves at the same time. (vLLM does the same sum for a whole block:
# `vllm/v1/kv_cache_interface.py:167` (`AttentionSpec.real_page_size_bytes`).)
#
# The obvious way to store a request is an array: its tokens one after the other. But an array has to be reserved
# **before** anyone knows how long the answer gets. If the model allows 8192 tokens, the safe reservation is 8192,
# and our 40 GiB are full after 40 requests.
#
# Real requests are mostly much shorter. Suppose their lengths at some moment are spread around 500 tokens, a few
# long ones among them (a log-normal distribution, cut at 8192).

# %% predict-waste
# Predict: of the memory that 40 such reservations take, which percentage holds a token?
prediction_percent = None  # for example 50

# %% paging-idea [markdown]
# The way out is as old as operating systems. Cut the cache into small **blocks** of, say, 16 tokens. A request
# gets a block when it needs one, any block that is free, and keeps a list of the blocks it got. That list is its
# **block table**. Nothing has to be contiguous, nothing is reserved ahead; at most 15 token places per request
# are empty, those at the end of its last block.
#
# The next cell lets requests in until the cache is full, under both policies. `kernels.BlockPool` is the
# course's own allocator, the small sister of `vllm/v1/core/block_pool.py:130` (`BlockPool`).

# %% waste
max_model_len, block_size = 8192, 16

generator = torch.Generator().manual_seed(0)
lengths = torch.exp(math.log(500) + torch.randn(4000, generator=generator))
lengths = lengths.long().clamp(1, max_model_len).tolist()

# Contiguous: every request reserves max_model_len.
contiguous = lengths[: cache_tokens // max_model_len]

# Paged: every request takes the blocks it needs now, until the pool runs dry.
pool = kernels.BlockPool(num_blocks=cache_tokens // block_size, block_size=block_size)
paged = []
for length in lengths:
    if math.ceil(length / block_size) > pool.num_free:
        break
    pool.allocate(f"request {len(paged)}", length)
    paged.append(length)

held = {"contiguous": sum(contiguous), "paged": sum(paged)}
reserved = {
    "contiguous": len(contiguous) * max_model_len,
    "paged": (cache_tokens // block_size - pool.num_free) * block_size,
}
requests = {"contiguous": len(contiguous), "paged": len(paged)}

print("You predicted:", prediction_percent)
for policy in held:
    print(
        f"{policy:>10}: {requests[policy]:4} requests, {100 * held[policy] / cache_tokens:.1f} % of the cache holds a token"
    )
plots.memory_use(held, reserved, requests, cache_tokens)

# %% waste-remark [markdown]
# Same memory, same stream of requests, almost ten times as many of them at once. That is the whole reason for
# paging.
#
# It has a price, and the rest of this course is about paying it well: the kernel can no longer walk through a
# request's keys in a straight line. It has to look up every block.
#
# Here is the same idea small enough to watch. Sixteen blocks of 4 tokens. A, B and C arrive; A and C finish. Then D
# needs ten blocks, more than any hole offers in one piece. In the picture D0 is D's first block, D1 its
# second; the small number in a corner is the physical block.

# %% pool-moments
pool = kernels.BlockPool(num_blocks=16, block_size=4)
names = ["A", "B", "C", "D"]


def moment():
    """For each physical block (index of its owner in `names`, logical block), or None."""
    held = [None] * 16
    for name in pool.requests:
        for logical, physical in enumerate(pool.block_table(name)):
            held[physical] = (names.index(name), logical)
    return held


moments = {}
for name, length in (("A", 10), ("B", 20), ("C", 15)):
    pool.allocate(name, length)
moments["A, B and C arrive"] = moment()
pool.free("A")
pool.free("C")
moments["A and C are done"] = moment()
pool.allocate("D", 40)
moments["D takes what is free"] = moment()

print("D's block table:", pool.block_table("D"))
plots.pool_map(moments)

# %% pool-remark [markdown]
# D's blocks lie wherever there was room, in no order that memory would show. The block table is the only record of
# it. Two words that this course uses all the time:
#
# - **logical block** *i* of a request: its tokens from `i * block_size` to `(i + 1) * block_size - 1`;
# - **physical block**: a place in the cache. `block_table[i]` is where logical block *i* lies.
#
# A block may even stand in two tables: requests with the same beginning can share the blocks of that beginning.

# %% explorer-read [markdown]
# Now hold the table in your own hands. The view below works a real `kernels.BlockPool`, the one that the checks use. The lines on
# the left are three requests as they see themselves, `logical→physical`; the cells on the right are the cache. Choose a block, with
# the mouse or with Tab and the arrow keys, to see whose token lies in which slot. Previous and Reset take steps back.
#
# 1. **Predict.** C gets 1 more token. Into which slot? Type it under *Predict the next step* before you press *Commit*. Then do the
#    same for A with 3 new tokens: its last block has no room for all of them, and the view says which block is handed out next.
# 2. **Fork** B, then append one token to the fork. One block is copied first: whose, where to, and why only that one?
# 3. **Reset**. Then **free** A and B, and look at the blocks marked *cached*. **Admit** a request of 12 tokens that begins like A. Which blocks does
#    it get without computing anything?

# %% explorer
explorer = widgets.BlockTableExplorer()
explorer

# %% explorer-answers [markdown]
# <details><summary>What you should have seen</summary>
#
# <b>1.</b> C has 5 tokens; the new one stands at position 5, logical block 1, offset 1. That is physical block 7: slot 7 * 4 + 1 = 29. A's
# come at positions 10, 11 and 12: two in the rest of block 12, slots 50 and 51, and one at the start of the block that is handed out,
# block 0: slot 0.
#
# <b>2.</b> The fork shares all of B's blocks, the last one too, which has room for one more token. Full blocks are never written again and
# stay shared. The last one is written, and a block that is written has one owner: B's block 5 is copied to the block that is handed out
# next (<b>copy-on-write</b>), and the new token goes to the copy.
#
# <b>3.</b> The first 8 tokens are found again as long as nobody needed their blocks: two full blocks, 9 and 2, shared. A half-filled
# block is never cached, so the rest is computed.
#
# </details>
#
# vLLM does the same: it looks for cached blocks (`vllm/v1/core/kv_cache_manager.py:194` (`get_computed_blocks`)), evicts a block that it
# hands out anew (`vllm/v1/core/block_pool.py:365` (`_maybe_evict_cached_block`)), and preempts a request by freeing its blocks
# (`vllm/v1/core/sched/scheduler.py:938` (`self.kv_cache_manager.free(request)`)). The fork, with its copy,
# is this course's own.

# %% block-size-trade-read [markdown]
# How large should a block be? Small blocks waste less; large ones mean shorter tables and longer straight walks.
# vLLM's default is `vllm/config/cache.py:45` (`DEFAULT_BLOCK_SIZE`), unless the chosen backend prefers another. For the requests that the
# paged cache let in above:

# %% block-size-trade
print("block_size   empty places   blocks in the longest table")
for size in (1, 16, 128, 1024):
    blocks = [math.ceil(length / size) for length in paged]
    empty = sum(blocks) * size - sum(paged)
    print(f"{size:10}   {100 * empty / (sum(blocks) * size):10.1f} %   {max(blocks):10}")

# %% q1-read [markdown]
# ## Part 2: Question 1. Why many backends?
#
# *20 minutes, ●●○, 8 points for the verdicts, 4 for the explanation.*
#
# A **backend** is everything behind one attention layer: the kernels, the cache layout that they expect, and the
# code that prepares their metadata. The formula behind it is always the same,
# `softmax(q · kᵀ · scale) · v`. Still vLLM 0.22.1 may pick one of thirteen backends on NVIDIA GPUs
# alone, because a **fast** kernel is fast for something in particular:
#
# - **a GPU.** Hopper's kernels use instructions that Ampere does not have, and Blackwell has others again;
# - **a shape.** Kernels are compiled for certain head sizes. 128 is everywhere; 96 or 16 is not;
# - **a number format.** The model's, and the cache's: an fp8 cache is half the size, if the kernel can read it;
# - **a block size.** 16 suits most; FlashMLA wants 64;
# - **a kind of attention.** MLA (DeepSeek's models cache one compressed vector per token instead of keys and values),
#   attention sinks (gpt-oss adds a learned term to the sum in the softmax), sparse attention.
#
# No kernel is best at all of it. So somebody has to choose, once, when the layer is built
# (`vllm/model_executor/layers/attention/attention.py:304` (`get_attn_backend`)), before any request exists.

# %% q1-selector [markdown]
# ### How the selector thinks
#
# It is simpler than its reputation. Three steps:
#
# 1. **Write the deployment down.** `vllm/v1/attention/selector.py:21` (`AttentionSelectorConfig`) has a field for
#    everything that may matter: head size, dtype, KV cache dtype, block size, MLA, sinks, and a few more.
#    A block size only if the user asked for one with `--block-size`
#    (`vllm/v1/attention/selector.py:78` (`user_specified_block_size`)).
# 2. **Ask the backends in order of preference.** The order, `vllm/platforms/cuda.py:79`
#    (`_get_backend_priorities`), depends on two things first of all: does the model use MLA, and is the GPU's
#    compute capability 10.x (data-centre Blackwell) or not? Each backend answers with a list of **reasons against
#    itself**: `vllm/v1/attention/backend.py:271` (`AttentionBackend.validate_configuration`). It goes down a fixed
#    list of questions, such as `vllm/v1/attention/backend.py:289` (`"head_size not supported"`).
# 3. **Take the first one without a reason.** `vllm/platforms/cuda.py:293`
#    (`CudaPlatformBase.get_attn_backend_cls`). If nobody is left, vLLM stops:
#    `vllm/platforms/cuda.py:343` (`No valid attention backend found`).
#
# No benchmark, no magic, no look at the traffic. An ordered list and a set of vetoes.
#
# **Compute capability** is NVIDIA's version number for a GPU's instruction set: 7.5 is a T4, 8.0 an A100, 8.6 an
# A10, 8.9 an L4 or an RTX 4090, 9.0 an H100 or H200, 10.0 a B200, 12.0 an RTX 5090.
#
# The order in which vLLM asks, read from the release itself (`course.vllm.rules` holds a table that was made by
# running vLLM's own code, and a test compares the two):

# %% q1-priorities
for use_mla in (False, True):
    for capability in ((9, 0), (10, 0)):
        head_size = 576 if use_mla else 128
        order = vllm_rules.priorities(
            vllm_rules.Deployment(capability, "bfloat16", head_size, use_mla=use_mla)
        )
        kind = "MLA" if use_mla else "not MLA"
        where = "capability 10.x" if capability == (10, 0) else "any other GPU"
        print(f"{kind}, {where}:\n    " + ", ".join(order))
print(len(deployments.CANDIDATES) - 1, "backends in all")

# %% predict-l4
# Predict: an L4 (capability 8.9), bfloat16, head size 128, and an fp8 KV cache. Which backend?
prediction_backend = None  # for example "FLASH_ATTN"

# %% q1-worked-read [markdown]
# Now the vetoes. `backend_table.accepts(capability)` asks every backend about common values, one at a time, and
# shows what it says yes to on that GPU. Find the column that decides the L4's case before you run on.

# %% q1-worked-table
backend_table.accepts((8, 9))

# %% q1-worked-reveal
l4 = vllm_rules.Deployment(capability=(8, 9), dtype="bfloat16", head_size=128, kv_cache_dtype="fp8")
print("You predicted:", prediction_backend)
print("vLLM picks:   ", vllm_rules.select(l4))
deployments.walk(l4)

# %% q1-worked-remark [markdown]
# FLASH_ATTN is asked first and says no: it reads an fp8 cache only through FlashAttention 3, which vLLM uses on
# Hopper (`backends/flash_attn.py:183` (`FlashAttentionBackend.supports_kv_cache_dtype`)). FLASHINFER is next, finds
# nothing against itself and wins. TRITON_ATTN would have been able to do it too. Nobody compared their speed:
# it came third.
#
# The same model on an H100 gets FLASH_ATTN. **The default depends on the GPU.** When somebody tells you "vLLM uses
# FlashAttention", ask them on what.
#
# ### Exercise
#
# Eight deployments. For each: which backend does vLLM 0.22.1 pick by default, on that GPU, with nothing chosen by
# hand except what the table says? If vLLM finds none, the answer is `"none"`. A KV dtype of `auto` means: the model's
# own dtype. For MLA the head size is that of the compressed vector, 576.

# %% q1-deployments
deployments.table()

# %% q1-tables-read [markdown]
# Everything you need is in the priority lists above and in these tables. Change the capability in the next cell to
# see another GPU; `backend_table.accepts((9, 0), use_mla=True)` shows the backends for MLA. A value that a row does
# not name is one that the backend refuses: TURBOQUANT reads only cache formats of its own, so neither `auto` nor `fp8`.
#
# (`vllm_rules.select` would hand you the answers. It is more useful afterwards, to explain one that you got wrong.)

# %% q1-tables
backend_table.accepts((8, 0))

# %% q1-verdicts-code nbgrader={"solution": true}
# One of the names in deployments.CANDIDATES for each, or "none".
q1_verdicts = {
    "h100-llama-bf16": "",
    "b200-llama-bf16": "",
    "b200-phi3-bf16": "",
    "t4-llama1b-fp16": "",
    "a100-gptoss-bf16": "",
    "a10-tiny-fp32": "",
    "h200-deepseek-fp8kv": "",
    "rtx4090-qwen-block8": "",
}
### BEGIN SOLUTION
q1_verdicts = {
    # Asked first on every GPU that is not 10.x, and nothing stands against it.
    "h100-llama-bf16": "FLASH_ATTN",
    # The same model. Capability 10.x has another list, and FLASHINFER heads it.
    "b200-llama-bf16": "FLASHINFER",
    # FLASHINFER is asked first and has no kernel for head size 96. FLASH_ATTN takes multiples of 8.
    "b200-phi3-bf16": "FLASH_ATTN",
    # FLASH_ATTN wants capability 8.0 at least; a T4 is 7.5.
    "t4-llama1b-fp16": "FLASHINFER",
    # Sinks: FLASH_ATTN has them from 9.0 on, FLASHINFER only on 10.x. Triton's kernel has them everywhere.
    "a100-gptoss-bf16": "TRITON_ATTN",
    # fp32 rules out the first two, head size 16 the third (Triton's kernel wants 32 at least).
    "a10-tiny-fp32": "FLEX_ATTENTION",
    # MLA has its own list. FLASH_ATTN_MLA does not read an fp8 cache; FLASHMLA is next and does.
    "h200-deepseek-fp8kv": "FLASHMLA",
    # The user's block size 8 is a veto everywhere. Without --block-size this would be FLASH_ATTN.
    "rtx4090-qwen-block8": "none",
}
### END SOLUTION

# %% q1-verdicts nbgrader={"grade": true, "points": 8}
autograder.check("q1_verdicts", q1_verdicts)
### BEGIN HIDDEN TESTS
autograder.check("q1_verdicts", q1_verdicts, suite="hidden")
### END HIDDEN TESTS

# %% q1-hints [markdown]
# <details><summary>Hint: where do I start?</summary>
#
# Three questions, in this order. MLA or not? Capability 10.x or not? That gives the list. Then walk down the list
# and look for a veto: GPU, head size, dtype, KV cache dtype, block size, sinks.
#
# </details>
#
# <details><summary>Hint: two deployments look the same to me</summary>
#
# Compare them column by column, and ask of every difference: is that a field of
# <code>AttentionSelectorConfig</code> at all? If only other columns differ, the verdict cannot.
#
# </details>
#
# <details><summary>Hint: one verdict is wrong and I do not see why</summary>
#
# Ask for the reasons: <code>deployments.walk(deployments.DEPLOYMENTS["b200-phi3-bf16"])</code> shows whom vLLM asks
# and what each answers.
#
# </details>

# %% q1-batch [markdown]
# <details><summary>After your verdicts: what was the batch column for?</summary>
#
# For nothing, and that is worth knowing. The choice is made before the first request, and no field of
# <code>AttentionSelectorConfig</code> holds a batch. Prefill or decode, one request or 512: the backend stays. Instead,
# a backend may keep several kernels and choose among them at every step.
#
# FlashInfer plans prefills and decodes with different wrappers:
# `backends/flashinfer.py:761` (`_get_prefill_wrapper`), `backends/flashinfer.py:782` (`_get_decode_wrapper`).
# The Triton backend splits the keys of a request over several programs only if every request has a single query
# token and there are few requests: `vllm/v1/attention/ops/triton_unified_attention.py:929` (`max_seqlen_q > 1`),
# `vllm/v1/attention/ops/triton_unified_attention.py:930` (`num_seqs > seq_threshold_3D`).
#
# </details>

# %% q1-change-read [markdown]
# ### After your verdicts: one change
#
# *Five minutes more, nothing graded.*
#
# Here is the selector as a form. It begins with `b200-llama-bf16`, where FLASHINFER is asked first and has nothing against itself. With
# **one** change, make it refuse; before the verdicts show, say who will be chosen in its place. Then press Reset and look for
# another. Besides an old GPU there are eight kinds of change that do it.
#
# Attention sinks are not among the eight, and neither is an A100. What happens with both?

# %% predict-change
# Predict: one change, and who takes over.
prediction_change = None  # for example ("float16", "TRITON_ATTN")

# %% q1-change
print("You predicted:", prediction_change)
widgets.BackendChooser(deployments.DEPLOYMENTS["b200-llama-bf16"], guess_first=True)

# %% q1-change-remark [markdown]
# <details><summary>After your changes: the eight, and the two together</summary>
#
# Another dtype (float32), a head size that was not compiled in (96), a cache format that it cannot read (int8_per_token_head), a block
# size that is no multiple of 16 (8), sparse attention, a multimodal prefix, non-causal attention, batch
# invariance. With block size 8 or sparse attention nobody is left: what a user asks for is a veto, not a wish. Some cache formats leave
# nobody either.
#
# Sinks on a B200 are fine, and so is an A100 without them. Together they are not: `backends/flashinfer.py:414`
# (`FlashInferBackend.supports_sink`) asks for the TRTLLM kernels, which are there on 10.x only (question 1's `a100-gptoss-bf16` is this case). A feature and a GPU can each be
# supported and their combination not. That is why the reasons are asked for anew for every deployment, and why no table of
# features answers the question.
#
# </details>

# %% q1-explain-read [markdown]
# **In your own words** (4 points, graded by hand; six sentences are enough). Attention is one operation. Why does
# vLLM have many backends? Name three kinds of things that a backend may be specialised for, with an example each.
# Say what the selector does **not** look at, and what vLLM does about that. Finally: what would it cost to have
# only the one backend that works everywhere?

# %% q1-explain [markdown] nbgrader={"grade": true, "solution": true, "points": 4}
# ### BEGIN SOLUTION
# **Model answer.** The formula is one; a fast kernel for it is not. Kernels are specialised for the hardware
# (FlashAttention 3 needs Hopper's instructions, TRTLLM's kernels Blackwell's), for shapes and number formats
# (head sizes that were compiled in; an fp8 cache; block sizes that suit how the kernel moves memory), and for kinds
# of attention (MLA's compressed cache, sinks, sparse patterns). Each of these changes memory traffic or
# instructions, and that decides the speed. So vLLM keeps an ordered list per GPU family and takes the first
# backend that has no reason against the configuration. The selector does not look at the traffic: batch size,
# lengths, prefill or decode. It chooses once, before a request exists; inside a backend the batch then decides
# which of its kernels runs (a decode kernel, a prefill kernel, with or without a split over the keys). A backend
# that works everywhere exists (FlexAttention's or Triton's come close) and is a good fallback and a good
# reference. As the only one it would cost speed on the very GPUs that people buy for speed, and features would wait
# until that one kernel has them.
#
# **Rubric, 1 point each**
# - *One formula, many machines*: says that the result is the same and that speed or support is what differs.
# - *Three kinds with examples*: hardware; shape, format or block size; kind of attention or feature. (Half a point
#   for two.)
# - *What is not looked at*: batch, lengths or traffic (sliding window counts: it is no field of
#   `AttentionSelectorConfig`), **and** that the backend chooses among its kernels at run time, or that the choice is
#   made before any request.
# - *Cost of one for all*: speed lost, or features and hardware that wait; fallbacks mentioned fairly.
# ### END SOLUTION

# %% q2-read [markdown]
# ## Part 3: Question 2. Three pieces of metadata
#
# *25 minutes, ●●○, 8 points for code, 4 for the explanation.*
#
# A paged attention kernel gets the queries of this step, and the cache. The cache is one large tensor for keys and
# one for values, `[num_blocks, block_size, num_kv_heads, head_size]`, shared by all requests. Nothing in it says
# whose a block is. The kernel knows only what it is told, and it is told three things:
#
# | | question it answers | used for |
# | --- | --- | --- |
# | **`block_table`** `[num_reqs, max_num_blocks]` | Where do I **read** this request's keys and values? | reading the cache |
# | **`slot_mapping`** `[num_tokens]` | Where do I **write** this step's keys and values? | writing the cache |
# | **`seq_lens`** `[num_reqs]` | How many tokens are really there, this step's included? | where to stop reading |
#
# And because a batch puts the tokens of all requests in one long row without gaps, a fourth little one says which
# rows are whose: **`query_start_loc`** `[num_reqs + 1]`. Request *i* owns the rows from `query_start_loc[i]` up to,
# not including, `query_start_loc[i + 1]`.
#
# A **slot** is the number of one token's place in the whole cache: `block * block_size + offset`. The block is the
# physical one.

# %% q2-example-read [markdown]
# Here is a batch in the middle of its life. Blocks of 4 tokens, 8 blocks.
#
# - **A** has 8 tokens in the cache and decodes: one new token. It just got its third block.
# - **B** has 2 tokens and decodes: one new token.
# - **C** has arrived this instant: nothing in the cache, a prompt of 5 tokens.
#
# Left, each request as it sees itself. Right, the same tokens as they lie in memory. Thick edges are what this step
# writes.

# %% q2-picture
block_size, num_blocks = 4, 8
block_tables = [[5, 2, 6], [7], [3, 1]]
num_computed_tokens = [8, 2, 0]
num_new_tokens = [1, 1, 5]

plots.cache_map(block_tables, num_computed_tokens, num_new_tokens, block_size, num_blocks)

# %% q2-layout-read [markdown]
# A, B and C run together, in one launch. Their new tokens stand in one flat row, seven in all. Nobody pads the
# short ones: a batch is **ragged**. Decodes and a prefill mix freely.

# %% q2-layout
plots.query_layout(num_computed_tokens, num_new_tokens)

# %% predict-slots
# Predict, with the pictures covered: C's block table is [3, 1], block_size is 4, and C writes 5 tokens.
# Into which slots?
prediction_slots = None  # for example [0, 1, 2, 3, 4]

# %% predict-slots-reveal
print("You predicted:", prediction_slots)
for position in range(5):
    logical, offset = position // 4, position % 4
    physical = [3, 1][logical]
    print(
        f"position {position}: logical block {logical}, offset {offset} -> physical block {physical}, "
        f"slot {physical} * 4 + {offset} = {physical * 4 + offset}"
    )

# %% q2-exercise [markdown]
# ### Exercise: build the metadata
#
# Write `build_metadata`. It gets plain lists, one entry per request:
#
# - `block_tables`: the physical block ids in logical order. A request may own more blocks than it needs yet;
# - `num_computed_tokens`: tokens already in the cache;
# - `num_new_tokens`: tokens of this step;
#
# and returns a dict of four tensors (on the CPU):
#
# | key | shape | dtype |
# | --- | --- | --- |
# | `"block_table"` | `[num_reqs, max_num_blocks]`, rows padded at the end with any number | `torch.int32` |
# | `"slot_mapping"` | `[num_tokens]`, request after request | `torch.int64` |
# | `"seq_lens"` | `[num_reqs]` | `torch.int32` |
# | `"query_start_loc"` | `[num_reqs + 1]` | `torch.int32` |
#
# For the batch above, `seq_lens` is `[9, 3, 5]` and `query_start_loc` is `[0, 1, 2, 7]`. A request with no tokens at
# all is legal. Loops are fine: clear beats fast here.


# %% q2-metadata-code nbgrader={"solution": true}
def build_metadata(
    block_tables: list[list[int]],
    num_computed_tokens: list[int],
    num_new_tokens: list[int],
    block_size: int,
) -> dict[str, torch.Tensor]:
    """The metadata of one step: block_table, slot_mapping, seq_lens, query_start_loc."""
    ### BEGIN SOLUTION
    # Padding is never read, so any number will do. 0 is what vLLM takes.
    width = max((len(table) for table in block_tables), default=0)
    block_table = [table + [0] * (width - len(table)) for table in block_tables]

    slot_mapping: list[int] = []
    query_start_loc = [0]
    for table, computed, new in zip(block_tables, num_computed_tokens, num_new_tokens, strict=True):
        # A new token's place follows from its position in the sequence, not from its index in this step.
        for position in range(computed, computed + new):
            physical = table[position // block_size]
            slot_mapping.append(physical * block_size + position % block_size)
        query_start_loc.append(query_start_loc[-1] + new)

    # This step's tokens are written before the kernel reads, so they count.
    seq_lens = [computed + new for computed, new in zip(num_computed_tokens, num_new_tokens, strict=True)]
    return {
        # reshape keeps two dimensions even when no request owns a block.
        "block_table": torch.tensor(block_table, dtype=torch.int32).reshape(len(block_tables), width),
        # 64 bits: a cache has millions of slots, and kernels multiply them by strides.
        "slot_mapping": torch.tensor(slot_mapping, dtype=torch.int64),
        "seq_lens": torch.tensor(seq_lens, dtype=torch.int32),
        "query_start_loc": torch.tensor(query_start_loc, dtype=torch.int32),
    }
    ### END SOLUTION


# %% q2-show-read [markdown]
# **See your own tensors.** `course.show` draws what your function returned for the batch of the pictures above, and names what breaks the
# contract. A cell with a thick edge is what seq_lens says this step writes; choose a block to see whether your slots agree. Grey entries
# past a request's end are never judged.

# %% q2-show
course.show(
    **build_metadata(block_tables, num_computed_tokens, num_new_tokens, block_size),
    block_size=block_size,
    num_blocks=num_blocks,
)

# %% q2-metadata nbgrader={"grade": true, "points": 5}
autograder.check("build_metadata", build_metadata)
### BEGIN HIDDEN TESTS
autograder.check("build_metadata", build_metadata, suite="hidden")
### END HIDDEN TESTS

# %% q2-hints [markdown]
# <details><summary>Hint: I do not know where to begin</summary>
#
# Do <code>seq_lens</code> and <code>query_start_loc</code> first; they need no block table. Then write the slots of
# request C by hand, as in the reveal above, and turn what you did into two loops: over requests, over new tokens.
#
# </details>
#
# <details><summary>Hint: A's slot is wrong, C's are right</summary>
#
# C starts from nothing, so for C "the third new token" and "position 2" are the same. For A they are not: its first
# new token stands at position 8.
#
# </details>
#
# <details><summary>Hint: shapes are right, a dtype is not</summary>
#
# <code>torch.tensor([...])</code> of Python integers is int64. Say <code>dtype=torch.int32</code> where the table
# above asks for it.
#
# </details>
#
# More: `autograder.hint("build_metadata")`.

# %% q2-feed-read [markdown]
# ### Put it to work
#
# Metadata is right when attention is right. So feed it to the kernels, in two steps, as a server would. First the
# past: A's first 8 tokens and B's first 2. Then this step. The cache starts out as NaN, "not a number", which is
# contagious: **one** read of a slot that nobody wrote, and the output is NaN too.

# %% q2-feed
device = kernels.device()
num_heads, num_kv_heads, head_size = 4, 2, 16
scale = head_size**-0.5
generator = torch.Generator().manual_seed(1)


def draw(*shape):
    return torch.randn(*shape, generator=generator).to(device)


# Every request's keys and values from its first token to its newest, in order: [seq_len, num_kv_heads, head_size].
seq_lens = [c + n for c, n in zip(num_computed_tokens, num_new_tokens)]
keys = [draw(length, num_kv_heads, head_size) for length in seq_lens]
values = [draw(length, num_kv_heads, head_size) for length in seq_lens]

key_cache = torch.full((num_blocks, block_size, num_kv_heads, head_size), math.nan, device=device)
value_cache = key_cache.clone()


def write_step(computed, new):
    """One step's cache write, through your metadata. Returns the metadata, on the kernels' device."""
    metadata = build_metadata(block_tables, computed, new, block_size)
    metadata = {name: tensor.to(device) for name, tensor in metadata.items()}
    step_keys = torch.cat([k[c : c + n] for k, c, n in zip(keys, computed, new)])
    step_values = torch.cat([v[c : c + n] for v, c, n in zip(values, computed, new)])
    kernels.reshape_and_cache(step_keys, step_values, key_cache, value_cache, metadata["slot_mapping"])
    return metadata


def written():
    """Slots that hold a number."""
    return (~key_cache.isnan()).all(dim=-1).all(dim=-1).flatten().nonzero().flatten().tolist()


write_step([0, 0, 0], num_computed_tokens)
print("written by the past:     ", written())
before = set(written())
metadata = write_step(num_computed_tokens, num_new_tokens)
print("added by this step:      ", sorted(set(written()) - before))
print("slot_mapping of this step:", metadata["slot_mapping"].tolist())

# %% q2-attend-by-hand-read [markdown]
# Compare the three lines with the picture: 10 slots of the past, 7 of this step. Now read. Seven queries, one for
# each new token, against the paged cache; and beside it plain dense attention on each request alone, its keys in
# order, no block anywhere. The two should agree to about seven digits.

# %% q2-attend-by-hand
query = draw(sum(num_new_tokens), num_heads, head_size)


def attend(block_table):
    """Paged attention of this step with a block table of your choice."""
    return kernels.paged_attention(
        query,
        key_cache,
        value_cache,
        block_table,
        metadata["seq_lens"],
        metadata["query_start_loc"],
        scale,
    )


start = metadata["query_start_loc"].tolist()
dense = [
    reference.dense_attention(query[start[i] : start[i + 1]], keys[i], values[i], scale) for i in range(3)
]


def compare(output):
    for i, name in enumerate("ABC"):
        difference = (output[start[i] : start[i + 1]] - dense[i]).abs().max().item()
        print(f"request {name}: largest difference to dense attention {difference:.1e}")


compare(attend(metadata["block_table"]))

# %% q2-attend nbgrader={"grade": true, "points": 3}
# Your metadata on many batches: cache write, paged attention, comparison with dense attention.
autograder.check("attend", build_metadata)
### BEGIN HIDDEN TESTS
autograder.check("attend", build_metadata, suite="hidden")
### END HIDDEN TESTS

# %% predict-swap
# Predict. We swap the first two blocks in the tables of A ([2, 5, 6] for [5, 2, 6]) and of C ([1, 3] for [3, 1]).
# Whose output changes?
prediction_swap = None  # "A", "C", "both" or "neither"

# %% predict-swap-reveal
swapped = metadata["block_table"].clone()
swapped[0, :2] = swapped[0, :2].flip(0)
swapped[2, :2] = swapped[2, :2].flip(0)
print("You predicted:", prediction_swap)
compare(attend(swapped))

# %% swap-remark [markdown]
# A does not mind. Its one query sees all nine keys, and a softmax over a set does not care in which order the set
# is visited: both full blocks still get read, the partial one is still last. (Where is word order, then? Already
# inside the keys: a model like Llama rotates its position into each key before it is cached.)
#
# C breaks, twice over. Its block 1 holds one token and was read as if it held four, three of them NaN. And even
# without NaN its early queries would now see later tokens: the kernel derives each key's position from the **logical**
# index, and the causal mask follows that.
#
# Keep this in mind when you test a kernel: **a decode over full blocks cannot see a scrambled table.** Partial
# blocks and queries of several tokens can.

# %% q2-trace-read [markdown]
# ### Two minutes of code reading
#
# Who gets which piece? Ask the functions themselves. Before you run the cell: which of the two does **not** take
# `slot_mapping`? Then find the one line of `_gather` in which the block table is used.

# %% q2-trace
for function in (reference.reshape_and_cache, reference.paged_attention):
    print(f"{function.__name__}({', '.join(inspect.signature(function).parameters)})\n")

print(inspect.getsource(reference._gather))

# %% q2-trace-answer [markdown]
# Writing takes `slot_mapping` and no table; reading takes the table and no slots. They meet only in the cache. If
# the two disagree, no error is raised anywhere: the kernel reads what somebody else left there.
#
# `_gather` is all of paging in one line: index the cache with the request's blocks, string them together, cut at
# `seq_len`. Which part of that line would you break by forgetting this step's tokens in `seq_lens`?
#
# <details><summary>Answer</summary>
#
# The cut, <code>[:seq_len]</code>. The newest tokens would be written and then not seen: each query would miss
# itself. No NaN, no error, just a slightly worse model. That is the nastiest kind of bug, and the check has a
# case for it.
#
# </details>

# %% q2-where [markdown]
# **Where this lives.** In this course: `kernels/kv_cache.py` writes, `kernels/decode.py` and `kernels/prefill.py` read,
# `kernels/reference.py` says what is right. In vLLM 0.22.1:
#
# - positions and lengths: `vllm/v1/worker/gpu_model_runner.py:2084` (`self.positions[:total_num_scheduled_tokens]`)
#   and `vllm/v1/worker/gpu_model_runner.py:2088` (`self.seq_lens[:num_reqs]`): what was computed plus what is new;
# - slots: a small Triton kernel, `vllm/v1/worker/block_table.py:326` (`_compute_slot_mapping_kernel`). Its heart is
#   your line: `vllm/v1/worker/block_table.py:363` (`pos // virtual_block_size`),
#   `vllm/v1/worker/block_table.py:378` (`block_numbers * block_size`);
# - rows that pad a batch get slot −1, `vllm/v1/attention/backends/utils.py:44` (`PAD_SLOT_ID`), and the cache write
#   skips them: `vllm/v1/attention/ops/triton_reshape_and_cache_flash.py:46` (`slot_idx < 0`);
# - all four travel together in `vllm/v1/attention/backend.py:353` (`CommonAttentionMetadata`);
# - the read, in vLLM's Triton kernel: `vllm/v1/attention/ops/triton_unified_attention.py:401-403`
#   (`physical_block_idx`).

# %% q2-explain-read [markdown]
# **In your own words** (4 points, graded by hand). Say what `block_table`, `slot_mapping` and `seq_lens` are for,
# one sentence each. Then pick two of them and describe what the **output** would look like if that piece alone were
# wrong, and whether anybody would notice.

# %% q2-explain [markdown] nbgrader={"grade": true, "solution": true, "points": 4}
# ### BEGIN SOLUTION
# **Model answer.** `block_table` maps a request's logical blocks to physical ones; the kernel uses it to read the
# keys and values in order. `slot_mapping` gives for each token of this step the physical place where its key and
# value are written. `seq_lens` says how many tokens of the request are in the cache, this step's included, so that
# the kernel stops before the unused tail of the last block and places the causal mask.
# A wrong `slot_mapping` writes a token somewhere else: the request misses it, and another request finds a stranger's
# token among its own. The text of both goes wrong, perhaps only a little, and no error is raised. A wrong
# `block_table` entry reads another request's block: fluent nonsense, and a leak of somebody else's context. With
# full blocks in the wrong order a decode is even unchanged. `seq_lens` too small forgets the newest tokens: plausible,
# worse text. Too large reads the tail: what was left there, NaN or an older request's tokens.
#
# **Rubric**
# - 1 point: the three roles, read / write / how far (all three; half a point for two).
# - 1 point: `seq_lens` includes this step's tokens, or: slots and tables hold physical positions.
# - 1 point: first failure described by its effect on the output, correctly.
# - 1 point: second failure, **and** says that no error is raised or how it would show (NaN, another request's text,
#   slightly worse text).
# ### END SOLUTION

# %% q3-read [markdown]
# ## Part 4: Question 3. Online softmax
#
# *27 minutes, ●●●, 10 points for code, 4 for the explanation.*
#
# A kernel now finds every key. It has to turn scores s<sub>1</sub>, …, s<sub>n</sub> into weights and add up the
# values:
#
# $$ o = \frac{\sum_i e^{s_i} v_i}{\sum_i e^{s_i}} $$
#
# Two things stand in the way. The exponentials overflow. And the row does not fit: at 100,000 tokens the scores of
# one query, over 32 heads, are larger than the fast memory that a kernel has to itself. It sees the row one tile
# at a time, and it would like to see each tile **once**.
#
# ### Step 1: why the naive formula breaks

# %% predict-overflow
# Predict: in float32, what is softmax([1000., 1001.]) by the formula above, taken literally?
prediction_softmax = None  # two numbers

# %% overflow
print("You predicted:", prediction_softmax)
scores = torch.tensor([1000.0, 1001.0])
print("e to the scores:   ", scores.exp())
print("naive softmax:     ", scores.exp() / scores.exp().sum())
print("the right one:     ", torch.softmax(scores, dim=0))
print()
for dtype in (torch.float16, torch.float32):
    print(f"{dtype}: e**x overflows above x = {math.log(torch.finfo(dtype).max):.1f}")

# %% overflow-remark [markdown]
# Infinity divided by infinity is NaN. In float16 a score of 12 is enough.
#
# The sly part: random test data hides it. Scores of random queries and keys are near 0, e<sup>s</sup> is near 1, and
# the naive formula passes. Real models do produce large scores. Our checks use both kinds.
#
# ### Step 2: subtract the maximum
#
# Multiply numerator and denominator by e<sup>−m</sup>. Nothing changes on paper:
#
# $$ o = \frac{\sum_i e^{s_i - m} v_i}{\sum_i e^{s_i - m}} $$
#
# With m the largest score, every exponent is at most 0, every term at most 1, and the largest exactly 1. Nothing
# overflows. Terms that underflow to 0 were too small to matter.
#
# But now it takes the whole row to know m, before the first term can be added. Taken literally: one pass for the
# maximum, one for the sum, one for the weighted values. Three walks over the keys, when walking over the keys is
# **the** cost.
#
# ### Step 3: what do we have to remember?
#
# Say we have seen some of the scores, not all. Keep three things about them:
#
# | | what | shape |
# | --- | --- | --- |
# | `m` | the maximum so far | `[...]` |
# | `l` | the sum of e<sup>s − m</sup> so far | `[...]` |
# | `acc` | the sum of e<sup>s − m</sup> v so far | `[..., head_size]` |
#
# If we stopped here, the answer for the tokens seen so far would be `acc / l`. Here is what the three **have to be**
# after each tile of a small row: computed from the definition, by looking at everything from the start.

# %% states-by-definition
# Six scores in three tiles of two; head_size is 1, so that a value is a number.
tiles = [[2.0, 1.0], [5.0, 3.0], [4.0, 0.0]]
tile_values = [[10.0, 20.0], [30.0, 40.0], [50.0, 60.0]]

by_definition = []
for count in range(1, len(tiles) + 1):
    seen = [s for tile in tiles[:count] for s in tile]
    seen_values = [v for tile in tile_values[:count] for v in tile]
    m = max(seen)
    l = sum(math.exp(s - m) for s in seen)
    acc = sum(math.exp(s - m) * v for s, v in zip(seen, seen_values))
    by_definition.append((m, l, acc))

print("after tile      m        l         acc      acc / l")
for i, (m, l, acc) in enumerate(by_definition):
    print(f"{i:10} {m:6.1f} {l:8.4f} {acc:11.4f} {acc / l:12.4f}")

plots.softmax_states(tiles, *zip(*by_definition))

# %% rescale-read [markdown]
# Look at `l` when tile 1 comes in. After tile 0 it was 1.3679, that is e<sup>2−2</sup> + e<sup>1−2</sup>. Tile 1
# brings a new maximum, 5, and contributes e<sup>5−5</sup> + e<sup>3−5</sup> = 1.1353. But 1.3679 + 1.1353 is 2.5032,
# and the table says 1.2034.

# %% predict-rescale
# Predict: by which factor must the old l, 1.3679, be multiplied before 1.1353 is added?
prediction_factor = None  # a number

# %% predict-rescale-reveal
old_l, new_part, total = by_definition[0][1], math.exp(5 - 5) + math.exp(3 - 5), by_definition[1][1]
print("You predicted:", prediction_factor)
print(f"({total:.4f} - {new_part:.4f}) / {old_l:.4f} = {(total - new_part) / old_l:.6f}")
print(f"e**(2 - 5)                   = {math.exp(2 - 5):.6f}")

# %% rescale-remark [markdown]
# ### Step 4: the rescale
#
# The old terms were measured against the old maximum, 2. They should have been measured against 5. And every one of
# them is wrong by **the same factor**:
#
# $$ e^{s_i - 5} = e^{s_i - 2} \cdot e^{2 - 5} $$
#
# So we need not see the old scores again. One multiplication repairs the whole past. That is online softmax: keep
# going with the best maximum you know, and when a better one turns up, rescale what you have.
#
# If the maximum does not change, the factor is e<sup>0</sup> = 1. If nothing was seen yet, `m` is −∞ and the factor is
# e<sup>−∞</sup> = 0: an empty past drops out by itself.
#
# What holds for `l` holds for `acc`, which is a sum of the same terms. The rest is yours.

# %% rescale-steps-read [markdown]
# **Step through it.** Eight scores in four tiles. *Next* lets a tile in; then type the new `m` and the factor, and reveal
# them. Guess before each reveal. Notice three things:
#
# 1. The bars of `l` and `acc`: how much of `before` is left after `× factor`, and when all of it.
# 2. Tile 2 is masked completely. What may `m`, `l` and `acc` do?
# 3. The table compares with the naive formula. Tile 3 brings a score of 12: in which column does it end in inf and nan? Then
#    write 100 instead of 12, and for a last row six times -200.

# %% rescale-steps
widgets.SoftmaxStepper(
    [2.0, 1.0, 5.0, 3.0, -math.inf, -math.inf, 12.0, 0.0],
    values=[10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0],
)

# %% q3-exercise [markdown]
# ### Exercise: the update
#
# A state is the tuple `(m, l, acc)` with shapes `[...]`, `[...]` and `[..., head_size]`; `...` may be any number of
# leading dimensions (tokens, heads), or none. It starts as `m = -inf`, `l = 0`, `acc = 0`.
#
# - `online_softmax_update(state, scores, values)` takes in one tile, scores `[..., n]` and values `[n, head_size]`,
#   and returns the new state. It leaves its inputs as they are.
# - `finalize(state)` returns the answer, `[..., head_size]`.
#
# One more thing. A **masked** score is −∞: that key may not be seen. A tile may be masked completely, for some
# rows or for all. Then the maximum so far may still be −∞, and −∞ − (−∞) is NaN. A state that has
# seen nothing must come through unharmed, and `finalize` gives zeros for it.

# %% nan-from-masks
nothing = torch.tensor(-math.inf)
print("-inf - (-inf)        =", (nothing - nothing).item())
print("exp(-inf - 0)        =", torch.exp(nothing - 0.0).item())


# %% q3-update-code nbgrader={"solution": true}
def online_softmax_update(state, scores, values):
    """The state after one more tile.

    state: (m [...], l [...], acc [..., head_size]). scores: [..., n], -inf where masked. values: [n, head_size].
    """
    m, l, acc = state
    ### BEGIN SOLUTION
    m_new = torch.maximum(m, scores.max(dim=-1).values)
    # Where nothing but masked scores came by, m_new is still -inf. Subtracting 0 there instead makes every
    # exponential below exp(-inf) = 0, so an empty state stays empty and no NaN is born.
    shift = torch.where(m_new == -math.inf, 0.0, m_new)
    alpha = torch.exp(m - shift)  # the one factor that repairs the past
    p = torch.exp(scores - shift[..., None])
    l_new = l * alpha + p.sum(dim=-1)
    acc_new = acc * alpha[..., None] + p @ values
    return m_new, l_new, acc_new
    ### END SOLUTION


def finalize(state):
    """The softmax-weighted mean of the values, [..., head_size]; zeros where nothing was seen."""
    m, l, acc = state
    ### BEGIN SOLUTION
    # l is at least 1 as soon as one score was seen (the maximum contributes e**0), so 0 means: nothing.
    # acc is 0 there as well, and 0 / 1 gives the zeros that are asked for.
    return acc / torch.where(l == 0, 1.0, l)[..., None]
    ### END SOLUTION


# %% q3-update nbgrader={"grade": true, "points": 6}
autograder.check("online_softmax_update", (online_softmax_update, finalize))
### BEGIN HIDDEN TESTS
autograder.check("online_softmax_update", (online_softmax_update, finalize), suite="hidden")
### END HIDDEN TESTS

# %% q3-hints [markdown]
# <details><summary>Hint: I know the formulas and not the tensors</summary>
#
# Four lines: the new maximum <code>[...]</code>, the factor for the past <code>[...]</code>, the tile's exponentials
# <code>[..., n]</code>, and the two sums. <code>x[..., None]</code> adds a dimension at the end, so that
# <code>[...]</code> meets <code>[..., n]</code>. A matrix product does the weighted sum of values.
#
# </details>
#
# <details><summary>Hint: small scores pass, large ones give NaN or inf</summary>
#
# Is there an exponential of something that can be positive? Every exponent should be "something minus the new
# maximum".
#
# </details>
#
# <details><summary>Hint: one tile is right, several are not</summary>
#
# Both <code>l</code> <b>and</b> <code>acc</code> carry the past. Are both multiplied by the factor? And is the factor
# <code>exp(old - new)</code>, not the other way round?
#
# </details>
#
# <details><summary>Hint: NaN as soon as a whole tile is masked</summary>
#
# Find where the new maximum is still −inf (<code>torch.where</code>) and subtract 0 there. Run the cell above again:
# the second line is the way out. <code>finalize</code> needs the same care about 0 / 0.
#
# </details>
#
# More: `autograder.hint("online_softmax_update")`.

# %% q3-watch-read [markdown]
# Now watch your own function walk along the row from above. It never looks back, and it should print the table that
# the definition gave.

# %% q3-watch
state = (torch.tensor(-math.inf), torch.tensor(0.0), torch.zeros(1))
print("after tile      m        l         acc          by definition")
for i, (tile, tile_value) in enumerate(zip(tiles, tile_values)):
    state = online_softmax_update(state, torch.tensor(tile), torch.tensor(tile_value)[:, None])
    m, l, acc = (float(part) for part in state)
    expected = ", ".join(f"{part:.4f}" for part in by_definition[i])
    print(f"{i:10} {m:6.1f} {l:8.4f} {acc:11.4f}          {expected}")

# %% q3-steps-read [markdown]
# And on a row that you choose: below, **your** function takes the steps. Where its state is not what the definition says, a line
# with ✘ names the first number that is off. Try the rows that could hurt it: a first tile of -inf, -inf; a falling row; all
# scores equal; tiles of 3 that do not divide the row.

# %% q3-steps
my_scores = [-math.inf, -math.inf, 2.0, 1.0, 5.0, 3.0, 4.0, 0.0]
widgets.SoftmaxStepper(my_scores, update=online_softmax_update)

# %% predict-tile-size
# Predict: 1000 scores as large as 300. Does the result get worse with 1000 tiles of 1 than with 1 tile of 1000?
prediction_tiles = None  # "worse", "the same", "better"

# %% tile-size
generator = torch.Generator().manual_seed(2)
row = 300 + 2 * torch.randn(1000, generator=generator)
row_values = torch.randn(1000, 64, generator=generator)
truth = torch.softmax(row.double(), dim=0) @ row_values.double()


def walk(scores, values, tile_size):
    """Your state after all tiles of `tile_size`."""
    state = (torch.tensor(-math.inf), torch.tensor(0.0), torch.zeros(values.shape[1]))
    for start in range(0, len(scores), tile_size):
        state = online_softmax_update(
            state, scores[start : start + tile_size], values[start : start + tile_size]
        )
    return state


print("You predicted:", prediction_tiles)
print(f"largest score: {row.max():.0f}")
for tile_size in (1000, 128, 16, 1):
    error = (finalize(walk(row, row_values, tile_size)) - truth).abs().max().item()
    print(f"tiles of {tile_size:4}: largest error against float64 {error:.1e}")

# %% merge-read [markdown]
# The tile size is free: the error stays at the level of float32's rounding. A kernel chooses it for the hardware.
#
# ### Step 5: merging
#
# One more idea, and it is a small one. So far a single worker walked the row from left to right. Suppose two workers,
# a and b, take one half each. Both end with a state, each measured against its own maximum.
#
# You know what to do: measure both against the larger one. Multiply a's sums by e<sup>m<sub>a</sub> − m</sup>, b's by
# e<sup>m<sub>b</sub> − m</sup>, and add. Both may need it, as neither side knows which maximum is the larger.
#
# Nothing in this depends on who came first, so states can be merged in any order, in any grouping. That is how one
# long request can keep a whole GPU busy: split its keys, let every part run at the same time, merge. vLLM's Triton
# backend does that for decodes and merges in `vllm/v1/attention/ops/triton_unified_attention.py:646`
# (`reduce_segments`). In lesson 3 you build it.
#
# ### Exercise: the merge


# %% q3-merge-code nbgrader={"solution": true}
def merge_states(a, b):
    """The state of everything that `a` or `b` has seen; they saw different keys. Shapes as above."""
    ### BEGIN SOLUTION
    m_a, l_a, acc_a = a
    m_b, l_b, acc_b = b
    m = torch.maximum(m_a, m_b)
    # As in the update: two empty sides have maximum -inf, and measuring against 0 keeps them empty.
    shift = torch.where(m == -math.inf, 0.0, m)
    weight_a, weight_b = torch.exp(m_a - shift), torch.exp(m_b - shift)
    l = l_a * weight_a + l_b * weight_b
    acc = acc_a * weight_a[..., None] + acc_b * weight_b[..., None]
    return m, l, acc
    ### END SOLUTION


# %% q3-merge nbgrader={"grade": true, "points": 4}
autograder.check("merge_states", (online_softmax_update, merge_states, finalize))
### BEGIN HIDDEN TESTS
autograder.check("merge_states", (online_softmax_update, merge_states, finalize), suite="hidden")
### END HIDDEN TESTS

# %% q3-merge-hints [markdown]
# <details><summary>Hint: where do I start?</summary>
#
# Copy your update and replace the tile by a second state. Where the tile had its exponentials, the second state has
# finished sums that only need a factor of their own.
#
# </details>
#
# <details><summary>Hint: the result is off, and worse when the parts differ in length</summary>
#
# Sums are added, never averaged. A part with many keys has a large <code>l</code>, and that is its weight. Merge
# first, divide at the very end.
#
# </details>
#
# More: `autograder.hint("merge_states")`.

# %% q3-split-read [markdown]
# Seven workers, parts of very different length, merged in a random order:

# %% q3-split
cuts = [0, 3, 50, 51, 300, 640, 999, 1000]
parts = [walk(row[i:j], row_values[i:j], tile_size=16) for i, j in zip(cuts, cuts[1:])]

for seed in range(3):
    order = torch.randperm(len(parts), generator=torch.Generator().manual_seed(seed)).tolist()
    merged = parts[order[0]]
    for index in order[1:]:
        merged = merge_states(merged, parts[index])
    error = (finalize(merged) - truth).abs().max().item()
    print(f"order {order}: largest error against float64 {error:.1e}")

# The same thing from the course's kernels. There a state is two things: the finished output, and lse = m + log(l).
outputs = torch.stack([finalize(part) for part in parts])[:, None, None, :].to(device)
lses = torch.stack([part[0] + torch.log(part[1]) for part in parts])[:, None, None].to(device)
merged_output, merged_lse = kernels.merge_attn_states(outputs, lses)
print(f"kernels.merge_attn_states: {(merged_output[0, 0].cpu() - truth).abs().max().item():.1e}")

# %% q3-where [markdown]
# `lse`, the logarithm of the sum of exponentials, packs `m` and `l` into one number: `lse = m + log(l)`. Kernels hand
# states around in this form, the output already divided. It costs a digit here: float32 holds a number near 300 only
# to about 0.00003, and that uncertainty goes into the weights.
#
# **Where this lives.** In this course: `kernels/softmax.py` and `kernels/merge.py`. In vLLM 0.22.1:
#
# - the update: `vllm/v1/attention/ops/triton_attention_helpers.py:361` (`softmax_step`), called once per tile in
#   `vllm/v1/attention/ops/triton_unified_attention.py:530` (`softmax_step(S, M, L)`); the next line rescales the
#   accumulator, `vllm/v1/attention/ops/triton_unified_attention.py:531` (`acc = acc * alpha[:, None]`);
# - the guard against −∞ − (−∞), same trick as in the hint:
#   `vllm/v1/attention/ops/triton_attention_helpers.py:374` (`m_j = tl.where(m_j > float("-inf"), m_j, 0.0)`);
# - the merge: `vllm/v1/attention/ops/triton_merge_attn_states.py:14` (`merge_attn_states`);
# - the state is held in float32, whatever the cache holds:
#   `vllm/v1/attention/ops/triton_unified_attention.py:361` (`dtype=tl.float32`).
#
# **A puzzle for the curious.** vLLM's kernel starts with `L = 1`, not 0:
# `vllm/v1/attention/ops/triton_unified_attention.py:359` (`L = tl.full([BLOCK_M], 1.0, dtype=tl.float32)`). Why is
# the result right all the same?
#
# <details><summary>Answer</summary>
#
# Without sinks <code>M</code> starts as −inf. The first tile's factor is exp(−inf − m) = 0, and the 1 is wiped out
# with the rest of the empty past. With attention sinks <code>M</code> starts as the sink's score
# (<code>init_softmax_M</code>), and then 1 is exactly right: e**(sink − sink), a key that has weight and no value.
#
# </details>

# %% q3-explain-read [markdown]
# **In your own words** (4 points, graded by hand). What is online softmax and what problem does it solve? Say what is
# kept, what happens when a larger score turns up and why that is exact, and why the maximum is there at all. End with
# one sentence on why two states can be merged.

# %% q3-explain [markdown] nbgrader={"grade": true, "solution": true, "points": 4}
# ### BEGIN SOLUTION
# **Model answer.** Softmax needs the maximum and the sum over the whole row before it can weight the first value, but
# a kernel sees the row of scores in tiles and cannot keep it: the row grows with the sequence, fast memory does not.
# Online softmax goes over the tiles once and keeps a state of constant size: the maximum so far `m`, the sum `l` of
# e<sup>s − m</sup> and the accumulator `acc`, the sum of e<sup>s − m</sup> v. When a tile brings a larger maximum,
# every old term is too large by the same factor, so `l` and `acc` are multiplied by e<sup>m_old − m_new</sup>. That is
# an identity, not an approximation; only rounding remains. The maximum is subtracted so that no exponential overflows (above 88.7 in
# float32, 11.1 in float16). At the end `acc / l` is the answer. Two states over different keys are the same kind
# of sums against different maxima; rescaled to the larger one they can be added, in any order, which allows splitting a
# long sequence over many workers.
#
# **Rubric, 1 point each**
# - *Problem*: the row does not fit or would be read several times; one pass, memory that does not grow with the
#   sequence.
# - *State*: `m`, `l`, `acc` and what each is.
# - *Rescale and why exact*: factor e<sup>m_old − m_new</sup> on both sums, because every old term carries the same factor.
# - *Maximum and merge*: overflow named as the reason for `m`, and merging justified (sums against a common maximum;
#   order does not matter). Half a point for one of the two.
# ### END SOLUTION

# %% remember [markdown]
# ## Part 5: What to remember
#
# - **The KV cache is the bottleneck.** Paging fills it with tokens instead of reservations.
# - **A block table is a list of physical blocks in logical order.** Read with `block_table`, write with
#   `slot_mapping`, stop at `seq_lens`. Wrong metadata rarely raises an error; it produces wrong text.
# - **slot = block_table[position // block_size] * block_size + position % block_size.**
# - **The selector is an ordered list with vetoes.** GPU, MLA, shapes and formats decide; traffic does not.
# - **Online softmax keeps (m, l, acc)** and repairs the past with one factor. States merge in any order.
# - **Test with large scores, partial blocks, several query tokens, and NaN where nobody wrote.** Kind data hides bugs.
#
# ### Glossary
#
# The course uses vLLM's words. Elsewhere you meet others for the same things:
#
# | here | elsewhere | meaning |
# | --- | --- | --- |
# | `block_size` | `page_size` (FlashInfer) | tokens per block. In Triton code `BLOCK_SIZE` is this one, `TILE_SIZE` the kernel's own step |
# | `block_table` | `page_table`; `kv_indices` with `kv_indptr` (FlashInfer: all rows in one list, and where each begins) | a request's physical blocks in logical order |
# | `slot_mapping` | `out_cache_loc` (SGLang) | where each new token is written; −1 means nowhere |
# | `seq_lens` | `context_lens`, `seqused_k` (FlashAttention) | tokens in the cache, this step's included |
# | `query_start_loc` | `cu_seqlens_q` (FlashAttention), `qo_indptr` (FlashInfer) | running sum of query lengths, from 0 |
# | `num_computed_tokens` | context length, prefix length | tokens in the cache before this step |
# | `num_kv_heads` | `num_key_value_heads` (model configs) | heads of the cache; several query heads share one (GQA) |
# | `scale` | `softmax_scale`, `sm_scale` | factor on the scores, usually `head_size ** -0.5` |
# | `lse` | logsumexp; some kernels keep it in base 2 | `m + log(l)`, natural logarithm here |
# | prefill, decode | context phase, generation phase | many new tokens of a request; one new token |
#
# vLLM itself crosses these dialects: where it calls FlashAttention, `backends/flash_attn.py:801`
# (`cu_seqlens_q=cu_seqlens_q`) is our `query_start_loc`, and in its FlashInfer backend
# `backends/flashinfer.py:618` (`self.page_size`) is our `block_size`.
#
# ### Next
#
# Lesson 2 follows one call from `Attention.forward` down to the kernel, through vLLM's own source. You will meet your
# four tensors again, on their way.
#
# Before you hand in: **Kernel → Restart Kernel and Run All Cells**, then **Validate**.
