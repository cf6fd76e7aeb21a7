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
import kernels  # before anything that loads triton: without a GPU, this turns its interpreter on

device = kernels.device()
print("torch", torch.__version__)
print("Triton kernels run on:", kernels.describe())

# %% q11-read [markdown]
# ## Part 1: A benchmark that can be wrong
#
# *60 minutes, ●●○, question 11: 8 points for the plan, 8 for the conclusion, 6 for the explanation.*
#
# "Our kernel is seven times as fast" is a number about a kernel. Users wait for a **server**: for the first token (TTFT), then from
# token to token (ITL). Between the two lie the rest of the model, the other requests in the batch, and the queue.
#
# In this part you plan a serving benchmark that could prove you wrong, run it, and say no more than it shows. In between there is
# a harness, `course.serving`. It has three parts:
#
# | part | where from |
# | --- | --- |
# | **who runs in which step**: continuous batching, chunked prompts, prefix sharing, preemption | the scheduler that our own engine runs on, over the real block pool: `kernels/backends/scheduler.py` |
# | **how long attention takes in it** | an H200's times from the course's benchmark, fitted, with the noise of its runs. It is a **replay**, and every output says so |
# | **how long the rest takes** | a constant: 8 billion parameters, read once a step, computed once a token |
#
# Who serves is a **contender**. `ours` is what a caller of `kernels` gets, on an H200 often its kernels for Hopper GPUs; `ours, Triton tier`
# is our Triton kernels alone.
#
# On a GPU of your own, `serving.run(plan, source="gpu")` times the kernels as steps need them, ours through the backends of lesson 2 and
# FlashAttention, FlashInfer and vLLM's Triton kernel where they are installed. What is graded is the replay: it is the same everywhere.

# %% q11-setup nbgrader={"locked": true}
from course import serving
from course.serving import kernel_times, metrics, step_times, workload
from course.serving.simulate import Server, Step, simulate

print("contenders:", "; ".join(kernel_times.contenders()))
print(kernel_times.describe(kernel_times.contenders()))
print(step_times.describe_rest())

# %% q11-step-read [markdown]
# ### A step is more than attention
#
# Three steps, each with one layer's attention as fitted, times 32 layers, and the rest of the model.

# %% q11-step
steps = {
    "one prompt of 2048": Step([], [(2048, 2048)]),
    "32 decodes at 1000": Step([1000] * 32, []),
    "both together": Step([1000] * 32, [(2048, 2048)]),
}
for name, step in steps.items():
    rest = step_times.rest_us(step.num_tokens)
    for who in ("ours", "vLLM Triton"):
        attention = step_times.NUM_LAYERS * kernel_times.costs(who).us(step)
        total = attention + rest
        print(
            f"{name:20} {who:12} {total / 1000:5.1f} ms, of which attention {100 * attention / total:3.0f} %"
        )

# %% predict-ttft
# In the benchmark our kernel is this much faster than vLLM's Triton kernel on a prompt of 2048 tokens:
kernel_ratio = kernel_times.measured_us("prefill 1 x 2k", "vLLM Triton") / kernel_times.measured_us(
    "prefill 1 x 2k", "ours"
)
print(f"kernel alone: {kernel_ratio:.1f} times as fast")
# Predict: users send prompts of 2000 to 4000 tokens, five a second. How many times shorter is the median TTFT with our kernel?
prediction_ttft_ratio = None

# %% q11-traffic-read [markdown]
# ### What a request waits for
#
# The words are those of `vllm bench serve` (in the release its source is vllm/benchmarks/serve.py):
#
# | figure | from | to |
# | --- | --- | --- |
# | **TTFT** | the request's arrival | its first token: queue, then prompt |
# | **ITL** | a token | the next of the same request; all gaps of all requests together |
# | **TPOT** | its first token | its last, divided by the gaps between: one number a request |
# | **E2EL** | the request's arrival | its last token |
# | **throughput** | | requests or tokens a second |
# | **goodput** | | requests a second that met every **target**, for instance TTFT below 200 ms and TPOT below 20 ms |
#
# **Arrivals** are a rate and a burstiness: gaps between requests come from a gamma distribution of that shape. 1 is a Poisson process,
# less comes in bursts. The alternative, a fixed number of clients who each wait for an answer before they ask again (a **closed
# loop**), gives a slow server less to do and hides its queue.
#
# Here is one run of such traffic: prompts of 2000 to 4000 tokens, five a second, on an empty server.

# %% q11-one-run
asked = workload.Workload(
    arrivals=workload.Arrivals("poisson", rate=5),
    prompt_tokens=workload.Lengths("uniform", 2000, 4000),
    output_tokens=workload.Lengths("uniform", 16, 64),
    num_requests=100,
)
server = Server(block_size=16, num_blocks=8192, max_num_seqs=64, max_num_batched_tokens=2048)
one_run = {}
for who in ("ours", "vLLM Triton"):
    attention_us = step_times.Replay().attention_us(who, seed="demo")
    one_run[who] = simulate(workload.traffic(asked, seed="demo"), server, step_times.step_us(attention_us))
    found = metrics.figures(one_run[who], warm_up_s=0.0, target={})
    print(
        who,
        {
            f"{statistic} {name}": round(found[name, statistic], 1)
            for name, statistic in (
                ("ttft_ms", "mean"),
                ("ttft_ms", "p50"),
                ("ttft_ms", "p99"),
                ("itl_ms", "p50"),
                ("itl_ms", "p99"),
            )
        },
    )

# %% q11-reveal
print("You predicted:", prediction_ttft_ratio)
medians = [metrics.figures(run, 0.0, {})["ttft_ms", "p50"] for run in one_run.values()]
print(
    f"In this run the median TTFT is {medians[1] / medians[0]:.2f} times shorter; the kernel alone was {kernel_ratio:.1f} times as fast."
)

# %% q11-remark [markdown]
# A prompt's step is mostly the rest of the model, so a faster kernel shortens a part. At a higher rate the queue comes in: whoever takes
# a little longer per prompt has others waiting behind it, and then a ratio can be **larger** than any kernel's. Both are why a kernel's
# number cannot stand for a server's.
#
# But this was **one run, from an empty server, of one seed**. Three things are missing before it is a benchmark.
#
# ### Steady state, percentiles, intervals
#
# **Steady state.** The first requests find nobody, the last leave an empty batch behind. Only between is the server in the state that
# you ask about. A **warm-up** cuts off the beginning; the harness cuts off the end, from the admission of the last request. At a
# rate above the server's **capacity** there is no steady state at all: the queue grows as long as you measure.
#
# **Percentiles.** Half of the requests are faster than p50, one in a hundred slower than p99. A mean moves with the many and hides the
# few. A p99 of 50 requests is just the slowest of them.
#
# **Intervals.** Repeat with other seeds, all contenders on the *same* traffic in each repetition, and take the ratio run by run.
# From n runs the harness gives their median and an interval for it, by nothing but counting: a run falls below the true median as
# often as a coin falls tails, so all of n lie on one side with probability 2 / 2<sup>n</sup>. From six runs on that is below 5 %, and
# [smallest, largest] is a 95 % interval; from nine on one at each end may be dropped.

# %% q11-interval
import random

draw = random.Random(0)
print("fewest runs with a 95 % interval:", metrics.least_runs())
for count in (6, 9, 12):
    # Waiting times as they are: many short, few long. The true median is 1.
    tries = [metrics.estimate([draw.lognormvariate(0, 1) for _ in range(count)]) for _ in range(4000)]
    held = sum(one.low <= 1 <= one.high for one in tries) / len(tries)
    print(f"{count:2} runs: {100 * held:.1f} % of 4000 intervals held the true median")

# %% q11-plan-read [markdown]
# ### Your plan
#
# Choose a claim that interests you: any two contenders, any metric, any traffic. Write it down **before** you run it, together with what
# would make you give it up. The plan is a dict:
#
# | key | holds |
# | --- | --- |
# | `hypothesis` | `faster`, `than`: contenders. `workload`, `metric` (`ttft_ms`, `itl_ms`, `tpot_ms`, `e2el_ms`, `tokens_per_s`, `requests_per_s`, `goodput_per_s`), `statistic` (`p50`, `p90`, `p95`, `p99`, `mean`; `rate` for what is per second), `factor`: at least how many times better |
# | `refuted_if` | `ratio_below`: the claim is refuted when the whole interval of the ratio lies below |
# | `workloads` | by name: `arrivals`, `prompt_tokens`, `output_tokens`, `num_requests`, and `shared_prefix_tokens` that every prompt begins with |
# | `metrics` | metric → list of statistics to report |
# | `target` | for goodput: `ttft_ms`, `tpot_ms` or `e2el_ms` → the most that a good request takes |
# | `warm_up_s`, `repetitions` | seconds to cut off; runs with seeds of their own |
# | `held_fixed` | `seed`, `cache` (of prefixes: `"cold"` or `"warm"`), `dtype`, `block_size`, `num_blocks`, `max_num_seqs`, `max_num_batched_tokens` |
# | `contenders` | by name, a dict with what is different for this one: best nothing, `{}` |
#
# `arrivals` is `{"process": "poisson", "rate": …, "burstiness": …}` or `{"process": "all at once"}`. Lengths are
# `{"distribution": "fixed", "tokens": …}`, `{"distribution": "uniform", "low": …, "high": …}` or
# `{"distribution": "lognormal", "median": …, "low": …, "high": …}`. Measured were bfloat16 and blocks of 16.
#
# The ratio is above 1 when the hypothesis points the right way: latency of `than` over latency of `faster`, or rate of `faster` over
# rate of `than`. Ideas: many short decodes behind a long shared prefix; long prompts; a burst; throughput with everything there at once.
#
# The check names one thing at a time that is missing or unfair, and why. Each of eight aspects is a point.

# %% q11-plan-code nbgrader={"solution": true}
q11_plan = {
    "hypothesis": {},
    "refuted_if": {},
    "workloads": {},
    "metrics": {},
    "target": {},
    "warm_up_s": None,
    "repetitions": None,
    "held_fixed": {},
    "contenders": {},
}
### BEGIN SOLUTION
q11_plan = {
    # The kernel is seven times as fast on such prompts. "At least twice" sounds safe.
    "hypothesis": {
        "faster": "ours",
        "than": "vLLM Triton",
        "workload": "long prompts",
        "metric": "ttft_ms",
        "statistic": "p50",
        "factor": 2.0,
    },
    "refuted_if": {"ratio_below": 2.0},
    "workloads": {
        "long prompts": {
            # About half of what the slower one can serve.
            "arrivals": {"process": "poisson", "rate": 5, "burstiness": 1.0},
            "prompt_tokens": {"distribution": "uniform", "low": 2048, "high": 4096},
            "output_tokens": {"distribution": "uniform", "low": 16, "high": 64},
            "shared_prefix_tokens": 0,
            "num_requests": 100,
        }
    },
    # Gaps and goodput beside it: they would show a first token that was bought from others.
    "metrics": {"ttft_ms": ["p50", "p90"], "itl_ms": ["p50", "p99"], "goodput_per_s": ["rate"]},
    "target": {"ttft_ms": 200, "tpot_ms": 20},
    # A request lives for about half a second; requests come for 20.
    "warm_up_s": 2.0,
    "repetitions": 9,
    "held_fixed": {
        "seed": 0,
        "cache": "cold",
        "dtype": "bfloat16",
        "block_size": 16,
        "num_blocks": 8192,
        "max_num_seqs": 64,
        "max_num_batched_tokens": 2048,
    },
    "contenders": {"ours": {}, "vLLM Triton": {}},
}
### END SOLUTION

# %% q11-capacity
# Requests a second that each can serve at most. Choose the rate from this, not from a feeling.
for name, by_contender in serving.capacity(q11_plan).items():
    print(name, {who: round(rate, 1) for who, rate in by_contender.items()})

# %% q11-plan nbgrader={"grade": true, "points": 8}
autograder.check("q11_plan", q11_plan)
### BEGIN HIDDEN TESTS
autograder.check("q11_plan", q11_plan, suite="hidden")
### END HIDDEN TESTS

# %% q11-plan-hints [markdown]
# <details><summary>Hint: I have no hypothesis</summary>
#
# Take a row of the kernels' table (<code>bench/results/nvidia-h200.md</code>, or <code>kernel_times.committed()</code>) where two contenders
# differ, and ask whether a user would notice: at which traffic, by which figure, by how much?
#
# </details>
#
# <details><summary>Hint: what is a good refutation?</summary>
#
# A line for the ratio such that you would publish the opposite if the whole interval fell below it. Between <code>1 / factor</code> and
# <code>factor</code>; at <code>factor</code> itself the claim has no excuse, at 1 only "no better at all" refutes it.
#
# </details>
#
# <details><summary>Hint: the check says something about the load</summary>
#
# Lengths decide capacity, capacity decides the rate: run the cell with <code>serving.capacity</code> again after every change.
#
# </details>
#
# More: `autograder.hint("q11_plan")`.

# %% q11-run-read [markdown]
# ### Run it, and look
#
# Before you run: write your expectation into the next line. A plan that has been run cannot be predicted any more.

# %% predict-effect
# Predict: the ratio that your hypothesis is about.
prediction_ratio = None

# %% q11-run
result = serving.run(q11_plan)
print("You predicted:", prediction_ratio)
result

# %% q11-picture
serving.picture(result)

# %% q11-picture-read [markdown]
# **Left: is the white part steady?** A line that climbs to the end is a queue that grows: the rate is above the capacity, and a latency
# has no value there. A line that has not yet reached its level when the hatching ends needs a longer warm-up.
#
# **Right: where does the bar lie?** Not the diamond. To the right of the claimed line with all its length: supported. To the left of the
# line of refutation with all its length: refuted. Anything else: undecided, and that is a result too.

# %% q11-conclusion-read [markdown]
# ### Your conclusion
#
# | key | holds |
# | --- | --- |
# | `verdict` | `"supported"`, `"refuted"` or `"undecided"` |
# | `better` | the contender that was better at all, or `"neither"` where the interval holds 1: not the same question |
# | `effect`, `interval` | the ratio's median, and (low, high) |
# | `figures` | the claimed statistic of both contenders, in the metric's unit |
# | `scope` | `workloads` it was shown for, `source` (`"replay"`), `gpu` whose kernels were timed |
#
# It is held against the intervals of **your own plan's run**, which the check runs again (in grading too: the plan holds the seed, so
# the replay gives the same numbers everywhere). Claiming more than the spread supports fails. So does claiming less than it shows. Rounding
# to two decimals is fine. `result.effect()` and `result.figure(name)` have `.middle` and `.interval`.

# %% q11-conclusion-code nbgrader={"solution": true}
q11_conclusion = {
    "verdict": None,
    "better": None,
    "effect": None,
    "interval": None,
    "figures": {},
    "scope": {},
}
### BEGIN SOLUTION
q11_conclusion = {
    # The whole interval lies below 2, and above 1: better, by less than was claimed.
    "verdict": "refuted",
    "better": "ours",
    "effect": round(result.effect().middle, 3),
    "interval": result.effect().interval,
    "figures": {name: result.figure(name).middle for name in ("ours", "vLLM Triton")},
    "scope": {"workloads": ["long prompts"], "source": "replay", "gpu": result.gpu},
}
### END SOLUTION

# %% q11-conclusion nbgrader={"grade": true, "points": 8}
autograder.check("q11_conclusion", (q11_plan, q11_conclusion))
### BEGIN HIDDEN TESTS
autograder.check("q11_conclusion", (q11_plan, q11_conclusion), suite="hidden")
### END HIDDEN TESTS

# %% q11-conclusion-hints [markdown]
# <details><summary>Hint: refuted, and yet better?</summary>
#
# Yes. "At least twice as fast" is refuted by a ratio of 1.6, and at 1.6 the contender is better. The verdict is about the claim,
# <code>better</code> about the contenders.
#
# </details>
#
# <details><summary>Hint: the interval does not decide, may I run it again?</summary>
#
# With more repetitions, and then say so: the plan is what counts. With another seed until it fits: no. That is choosing the result.
#
# </details>
#
# More: `autograder.hint("q11_conclusion")`.

# %% q11-explain-read [markdown]
# **In your own words** (6 points, graded by hand). A colleague wants to announce: "Seven times faster on prompts, so the first token comes
# seven times sooner." Answer in about ten lines: why does the ratio of the kernels not arrive at the user, and when can the
# server's ratio be the larger one? What did your plan do so that both contenders were compared in the same, steady state? What does your
# interval cover, and what does it not cover, given that this was a replay? What would you measure next, and where?

# %% q11-explain [markdown] nbgrader={"grade": true, "solution": true, "points": 6}
# ### BEGIN SOLUTION
# **Model answer.** Attention is a part of a step. For a long prompt the matrix products of the rest take most of the time, for a decode the
# reading of the parameters does; a kernel seven times as fast on the prompt shortens only its part, and in our run the median TTFT was
# about 1.6 times shorter. Near saturation it goes the other way: who takes a little longer per request is close to its capacity first, its
# queue grows, and a latency or goodput ratio can exceed the kernel's. Both contenders got the same requests in each repetition (same
# seed, lengths, arrivals), the same server and cache, at about half of the slower one's capacity, so that no queue grew; the first two
# seconds and the emptying end were cut off, and the ratio was taken run by run. The interval covers what differs from run to run: traffic of other
# seeds, and the kernels' measured noise. It does not cover that kernel times were fitted and partly continued beyond what was measured
# (an error of several percent in the middle, much more at the ends), that the rest of the model is a constant, that scheduling, sampling and the network
# cost nothing here, nor other GPUs and other models. Next I would run the same plan on a real H200: first the kernels at the shapes that steps really
# had, then a server with `vllm bench serve`, same traffic, for both backends.
#
# **Rubric, 1 point each**
# - *Share*: attention is a part of the step; the rest does not get faster. With a number of one's own run.
# - *Queue*: near capacity small differences grow, the ratio may exceed the kernel's.
# - *Same terms*: same traffic in each repetition, same server, dtype, block size, cache. Two named.
# - *Steady*: warm-up cut and load below capacity; what would have happened otherwise.
# - *Interval*: covers run to run; does not cover fit and continuation, the constant, other GPUs. One of each named.
# - *Next*: a measurement that would attack the weakest assumption, on real hardware, with the traffic kept.
# ### END SOLUTION

# %% q11-invariants [markdown]
# **What must hold, and what breaks if it doesn't**
#
# | must hold | or else |
# | --- | --- |
# | a result that would refute the claim, named before the run | the run can only agree |
# | the same traffic, server, numbers and cache for all | the difference is theirs |
# | requests arrive; nobody waits for an answer to ask | the slow server is spared |
# | a rate below capacity for latencies; saturation for throughput | the figure is the length of the run, or the rate you chose |
# | warm-up and end cut off | an empty server is a fast server |
# | the percentile that is claimed, of enough requests | a mean hides the tail; a p99 of fifty is a maximum |
# | several runs, and an interval | a seed decides |
# | a conclusion as wide as its interval and its scope | somebody builds on what was never shown |
#
# **Where this lives.** `course/serving/`, a few short files; the scheduler in `kernels/backends/scheduler.py`. In vLLM 0.22.1 the same
# order: `vllm/v1/core/sched/scheduler.py:364` (`First, schedule the RUNNING requests.`), then
# `vllm/v1/core/sched/scheduler.py:544` (`Next, schedule the WAITING requests.`); who came last is the first to go,
# `vllm/v1/core/sched/scheduler.py:481` (`preempted_req = self.running.pop()`), and loses all that was computed,
# `vllm/v1/core/sched/scheduler.py:941` (`request.num_computed_tokens = 0`).
#
# **Read on**
# - `vllm bench serve`: [its documentation](https://docs.vllm.ai/en/latest/cli/bench/serve/), and vllm/benchmarks/serve.py, where each figure is
#   a few lines. Look for what it does about the warm-up.
# - Schroeder, Wierman, Harchol-Balter, *Open versus closed: a cautionary tale* (NSDI 2006): how much a closed loop changes.
# - Zhong et al., *DistServe* (OSDI 2024): goodput under targets for TTFT and TPOT.
# - Le Boudec, *Performance Evaluation of Computer and Communication Systems*: intervals for medians and percentiles by counting.
#
# **Natural stop.** You have a plan that could have failed, and a conclusion that holds.

# %% q12-read [markdown]
# ## Part 2: A new backend
#
# *60 minutes, ●●●, 18 points for the code and the table, 6 for the explanation.*
#
# > A paper appears with a kind of attention that nobody serves yet. You are asked to bring it into vLLM. What do you write, what do you
# > reuse, and how do you know that it is right?
#
# The kind is **latent-compressed KV**, as in DeepSeek's models (MLA, multi-head latent attention). You write it as if it were new: three
# classes against the contract that you traced in lesson 2, in torch. Then they go through the suite that our own backends pass, and
# a model runs on them.
#
# ### The idea, in two numbers
#
# Ordinary attention caches a key and a value for each kv head. MLA caches one **latent** vector `c` a token, of `kv_lora_rank` numbers.
# From it keys and values of *all* heads can be computed again, by two matrices for each head `h`:
#
# $$ k^{nope}_h = W^{UK}_h \, c \qquad v_h = W^{UV}_h \, c $$
#
# A key turned by its position could not be computed so: the rotation would stand between the matrix and the query. So a small part of the
# key, `k_pe`, which all heads share, is turned and cached beside the latent. A token's row in the cache is
#
#     [ c | k_pe ]        512 + 64 = 576 numbers in DeepSeek-V3
#
# Nothing else is kept. There is no value cache.

# %% q12-setup nbgrader={"locked": true}
import inspect
from dataclasses import dataclass

from course import reuse_parts
from kernels import backends
from kernels.backends import batch, conformance, dense_torch, engine, tiny_model

# %% predict-latent-bytes
# Predict: a model of 128 heads. With MLA its cache takes how many bytes a token and layer, in bf16?
# And a model of 64 heads with GQA, 8 kv heads of 128 numbers?
prediction_latent_bytes = None
prediction_gqa_bytes = None

# %% q12-bytes
BF16 = 2
cached_bytes = {
    "GQA, 8 kv heads of 128 (Llama-3-70B)": 2 * 8 * 128 * BF16,
    "MLA, 512 + 64 (DeepSeek-V3)": (512 + 64) * BF16,
    "the same 128 heads without MLA (keys of 128 + 64, values of 128)": 128 * (128 + 64 + 128) * BF16,
}
print("You predicted:", prediction_latent_bytes, "and", prediction_gqa_bytes)
for name, count in cached_bytes.items():
    print(f"{count:7,} bytes a token and layer: {name}")

# %% q12-absorb-read [markdown]
# **1152 against 4096 bytes**: three and a half times as many tokens fit than with GQA, and a decode that is bound by memory reads that
# much less.
#
# ### Absorption
#
# But must a decode not compute all keys and values first, for every cached token? It need not. A score is a product of three
# factors, and one may put the brackets elsewhere:
#
# $$ q_h \cdot (W^{UK}_h \, c) = (W^{UK\,T}_h \, q_h) \cdot c \qquad \sum_t p_t \, (W^{UV}_h \, c_t) = W^{UV}_h \sum_t p_t \, c_t $$
#
# On the left one multiplies for each *cached token*, on the right once for each *query*: W_UK is **absorbed** into the query. At the
# other end, attention may average latents, and W_UV is applied once, to the result. What remains in the middle looks like attention with *one* kv head of 576 numbers, whose
# value is the first 512 numbers of its key.

# %% q12-absorb
generator = torch.Generator().manual_seed(0)
heads, nope, rope, rank, tokens = 4, 24, 8, 32, 10
W_UK = torch.randn(heads, nope, rank, generator=generator, dtype=torch.float64) / rank**0.5
W_UV = torch.randn(heads, nope, rank, generator=generator, dtype=torch.float64) / rank**0.5
q_nope = torch.randn(heads, nope, generator=generator, dtype=torch.float64)
q_pe = torch.randn(heads, rope, generator=generator, dtype=torch.float64)
c = torch.randn(tokens, rank, generator=generator, dtype=torch.float64)
k_pe = torch.randn(tokens, rope, generator=generator, dtype=torch.float64)
scale_of_heads = (nope + rope) ** -0.5  # of the heads as they were: 32 numbers, not the row's 40

# Keys and values of each head, computed from the latents.
key = torch.cat([torch.einsum("hdr,tr->htd", W_UK, c), k_pe.expand(heads, -1, -1)], dim=-1)
value = torch.einsum("hdr,tr->htd", W_UV, c)
scores = torch.einsum("hd,htd->ht", torch.cat([q_nope, q_pe], dim=-1), key) * scale_of_heads
unabsorbed = torch.einsum("ht,htd->hd", scores.softmax(dim=-1), value)

# The same, absorbed: query and output are multiplied, the cached rows are used as they are.
row = torch.cat([c, k_pe], dim=-1)
absorbed_query = torch.cat([torch.einsum("hd,hdr->hr", q_nope, W_UK), q_pe], dim=-1)
scores = torch.einsum("hr,tr->ht", absorbed_query, row) * scale_of_heads
mean_latent = torch.einsum("ht,tr->hr", scores.softmax(dim=-1), row[:, :rank])
absorbed = torch.einsum("hr,hdr->hd", mean_latent, W_UV)
print(f"largest difference: {(absorbed - unabsorbed).abs().max().item():.1e}")

# %% predict-flops
# Predict: one query over 4096 cached tokens, and a prompt of 4096. Which of the two ways multiplies less, in each?
prediction_decode = None  # "absorbed" or "unabsorbed"
prediction_prompt = None


# %% q12-flops
def multiplications(num_queries, num_keys, num_pairs):
    """(absorbed, unabsorbed) multiplications of DeepSeek-V3's sizes; num_pairs: of queries and keys that see each other."""
    heads, nope, rope, rank, value = 128, 128, 64, 512, 128
    projections = heads * (nope + value) * rank  # W_UK and W_UV, for one token
    absorbed = num_queries * projections + num_pairs * heads * (rank + rope + rank)
    unabsorbed = num_keys * projections + num_pairs * heads * (nope + rope + value)
    return absorbed, unabsorbed


print("You predicted:", prediction_decode, "and", prediction_prompt)
for name, sizes in {
    "one query over 4096 tokens": (1, 4096, 4096),
    "a prompt of 4096": (4096, 4096, 4096 * 4097 // 2),
}.items():
    one, other = multiplications(*sizes)
    print(f"{name}: absorbed {one / 1e9:7.1f}, unabsorbed {other / 1e9:7.1f}, in 10^9 multiplications")

# %% q12-flops-remark [markdown]
# A decode absorbs: computing all keys again would cost a hundred times as much. A prompt does not: it needs each token's keys and values
# once for thousands of queries, and then heads of 192 and 128 numbers are cheaper to multiply than rows of 576 and 512. vLLM does both, and its file explains
# why, from `vllm/model_executor/layers/attention/mla_attention.py:13` (`MLA has two possible ways of computing`) on. The layer splits
# the batch: `layers/attention/mla_attention.py:691` (`self.impl.forward_mha`) for the prompts,
# `layers/attention/mla_attention.py:774` (`self.impl.forward_mqa`) for the decodes. What counts as a decode is for the backend to
# say: `backends/mla/flashattn_mla.py:109` (`reorder_batch_threshold: int = 512`) sends prompts of up to 512 tokens the decode's way.
#
# Our layer is simpler: **it absorbs always**, prompts included, and your impl sees only absorbed queries. That is right for every batch,
# and slow for long prompts.
#
# ### What your three classes are handed
#
# Here is the layer. Read it once: it does the projections, so your backend needs neither W_UK nor W_UV.

# %% q12-layer
print(inspect.getsource(backends.MLAAttention.forward))

# %% q12-contract [markdown]
# | who calls | what of yours | with | expects |
# | --- | --- | --- | --- |
# | the selector, the engine | `LatentBackend.get_kv_cache_shape` | num_blocks, block_size, num_kv_heads = 1, head_size = kv_lora_rank + rope part | the shape of one layer's cache |
# | the engine, once a step | `LatentMetadataBuilder.build` | the batch, `CommonAttentionMetadata` | metadata of your own class |
# | the layer, first | `LatentImpl.do_kv_cache_update` | kv_c_normed `[num_tokens, kv_lora_rank]`, k_pe `[num_tokens, 1, rope]`, the cache, slot_mapping | the rows in their slots |
# | the layer, then | `LatentImpl.forward_mqa` | q `[num_tokens, num_heads, head_size]`, absorbed; the cache; your metadata | `[num_tokens, num_heads, kv_lora_rank]` |
#
# `kernels/backends/backend.py` has the whole contract. The batch is lesson 1's. This one has a chunk of 3 tokens of a request that has 6 by
# then, and a decode of one that has 5, in blocks of 4; the engine's tensors have room for two rows of padding:

# %% q12-batch
step_tensors = batch.StepTensors(4, 16, 3, 4, device)
common = step_tensors.fill([[7, 2], [5, 1]], seq_lens=[6, 5], query_lens=[3, 1], num_tokens=6)
for name in ("query_start_loc", "seq_lens", "block_table_tensor", "slot_mapping"):
    print(f"{name}: {getattr(common, name).tolist()}")
print("num_actual_tokens:", common.num_actual_tokens, " max_query_len:", common.max_query_len)

# %% q12-backend-read [markdown]
# ### Exercise: three classes
#
# **1. The backend describes** (5 minutes). A backend from outside has one place in the registry, `CUSTOM`, and so that is its name: vLLM
# looks the member up by what `get_name` says, `layers/attention/attention.py:386` (`AttentionBackendEnum[self.attn_backend.get_name()]`).
# `is_mla` decides which layer may use it. Everything that you do not override is inherited: `validate_configuration`, for one,
# answers from the lists below. Claim only what your impl does.


# %% q12-backend-code nbgrader={"solution": true}
class LatentBackend(backends.AttentionBackend):
    supported_dtypes = [torch.float16, torch.bfloat16, torch.float32]
    supported_kv_cache_dtypes = ["auto"]  # the model's own dtype
    forward_includes_kv_cache_update = False  # the layer has the rows written before forward_mqa

    @staticmethod
    def get_impl_cls():
        return LatentImpl

    @staticmethod
    def get_builder_cls():
        return LatentMetadataBuilder

    @staticmethod
    def get_name():
        ### BEGIN SOLUTION
        return "CUSTOM"
        ### END SOLUTION

    @classmethod
    def is_mla(cls):
        ### BEGIN SOLUTION
        return True
        ### END SOLUTION

    @staticmethod
    def get_kv_cache_shape(num_blocks, block_size, num_kv_heads, head_size, cache_dtype_str="auto"):
        """The shape of one layer's cache: which dimensions, and how many numbers for a token?"""
        ### BEGIN SOLUTION
        # One row a token, for all heads: it is the key, and its first part the value.
        return (num_blocks, block_size, head_size)
        ### END SOLUTION


# %% q12-builder-read [markdown]
# **2. The builder prepares** (15 minutes), once a step for all layers. Put into `LatentMetadata` whatever your impl will want; its
# fields are yours. Here is a proposal that makes the impl short: for each request, the slots of its tokens in order, from position 0 to
# `seq_len - 1` (this step's tokens included, they are written by then). `self.kv_cache_spec.block_size` is the block size. The batch's
# tensors are the engine's and are filled anew in the next step: read them, copy what you want to keep, change nothing.


# %% q12-builder-code nbgrader={"solution": true}
@dataclass
class LatentMetadata:
    num_actual_tokens: int
    query_start_loc: list[int]  # where each request's query tokens begin, and the end
    slots: list[torch.Tensor]  # of each request: the slots of its tokens, in order


class LatentMetadataBuilder(backends.AttentionMetadataBuilder):
    def build(self, common_prefix_len, common_attn_metadata, fast_build=False):
        ### BEGIN SOLUTION
        common = common_attn_metadata
        block_size = self.kv_cache_spec.block_size
        slots = []
        for request, seq_len in enumerate(common.seq_lens.tolist()):
            position = torch.arange(seq_len, device=common.seq_lens.device)
            block = common.block_table_tensor[request, position // block_size].long()
            slots.append(block * block_size + position % block_size)
        query_start_loc = common.query_start_loc_cpu.tolist()
        return LatentMetadata(common.num_actual_tokens, query_start_loc, slots)
        ### END SOLUTION


# %% q12-impl-read [markdown]
# **3. The impl computes** (25 minutes), in every layer of every step.
#
# - The **write**: row `i` is `[kv_c_normed[i] | k_pe[i]]` and goes to slot `slot_mapping[i]`. Slot −1 is not written. The tensors may have more
#   rows than `slot_mapping` has entries.
# - The **read**: for each request gather its rows; they are the keys of *all* heads, and their first `kv_lora_rank` numbers the values. Query `i` of
#   `n` sits at position `seq_len - n + i`, as in lesson 3. The scale is `scale`: it belongs to the heads as they were before
#   absorption.
# - The **output** has as many rows as `q`. Rows past `num_actual_tokens` hold anything; those of a request of length 0 are zeros.
#
# Torch is enough, one request at a time, in float32 inside.


# %% q12-impl-code nbgrader={"solution": true}
class LatentImpl(backends.MLAAttentionImpl):
    def __init__(self, num_heads, head_size, scale, num_kv_heads, kv_lora_rank, kv_cache_dtype="auto"):
        self.num_heads = num_heads
        self.head_size = head_size
        self.scale = scale
        self.kv_lora_rank = kv_lora_rank

    def do_kv_cache_update(self, kv_c_normed, k_pe, kv_cache, slot_mapping, kv_cache_dtype, k_scale):
        ### BEGIN SOLUTION
        num_tokens = len(slot_mapping)
        row = torch.cat([kv_c_normed[:num_tokens], k_pe[:num_tokens, 0]], dim=-1)
        written = slot_mapping >= 0
        rows = kv_cache.flatten(0, 1)  # a view: [num_blocks * block_size, head_size]
        rows[slot_mapping[written]] = row[written]
        ### END SOLUTION

    def forward_mqa(self, q, kv_c_and_k_pe_cache, attn_metadata, layer):
        ### BEGIN SOLUTION
        rows = kv_c_and_k_pe_cache.flatten(0, 1)
        output = q.new_zeros(len(q), self.num_heads, self.kv_lora_rank)
        starts = attn_metadata.query_start_loc
        for request, slots in enumerate(attn_metadata.slots):
            start, end = starts[request], starts[request + 1]
            if len(slots) == 0:
                continue
            key = rows[slots].float()  # [seq_len, head_size], the same for all heads
            value = key[:, : self.kv_lora_rank]
            scores = torch.einsum("qhd,td->hqt", q[start:end].float(), key) * self.scale
            # Query i of n sits at position seq_len - n + i, and sees itself and what came before.
            position = torch.arange(len(slots), device=q.device)
            sits_at = position[len(slots) - (end - start) :]
            scores = scores.masked_fill(position[None, :] > sits_at[:, None], float("-inf"))
            output[start:end] = torch.einsum("hqt,tr->qhr", scores.softmax(dim=-1), value).to(q.dtype)
        return output
        ### END SOLUTION


# %% q12-try-read [markdown]
# **Try it.** The conformance suite is a table; so it was for our own backends. A check says what it holds and what it found. Left out is
# what a backend may lack and says that it lacks.

# %% q12-try
print(conformance.table(conformance.run(LatentBackend)))

# %% q12-check-read [markdown]
# The check below asks more: one row a token and no more, blocks that move between two steps, no claim without the deed, and a tiny
# model whose tokens must be those of the dense reference. Each case is a point. `LatentImpl.forward_mqa` has to be yours, so a
# subclass of our `TritonMLAImpl` does not count; calling a kernel such as `kernels.latent_decode` from it does, and inheriting a
# builder is reuse.

# %% q12-backend nbgrader={"grade": true, "points": 14}
autograder.check("latent_backend", (LatentBackend, LatentImpl, LatentMetadataBuilder))
### BEGIN HIDDEN TESTS
autograder.check("latent_backend", (LatentBackend, LatentImpl, LatentMetadataBuilder), suite="hidden")
### END HIDDEN TESTS

# %% q12-hints [markdown]
# <details><summary>Hint: the builder</summary>
#
# Position <code>p</code> lies in slot <code>block_table[request, p // block_size] * block_size + p % block_size</code>, with
# <code>p = torch.arange(seq_len)</code> for all of them at once. Block numbers are int32: <code>.long()</code> before you multiply.
#
# </details>
#
# <details><summary>Hint: the write</summary>
#
# <code>kv_cache.flatten(0, 1)</code> is a view with one row a slot: writing into it writes into the cache. Write only
# the rows whose slot is at least 0. Index −1 is no error in torch, it is the last row.
#
# </details>
#
# <details><summary>Hint: a decode is right and a chunk is not</summary>
#
# With one query everything is before it, and the mask does not matter. In a chunk of 3 of 6 tokens, query 0 sits at position 3:
# <code>position > sits_at[:, None]</code> is what it must not see.
#
# </details>
#
# <details><summary>Hint: the suite passes, the model says other tokens</summary>
#
# The suite's layer has the identity for W_UK and W_UV, so a projection too many does not show there. The layer applies W_UV to what you
# return.
#
# </details>
#
# More: `autograder.hint("latent_backend")`.

# %% q12-model-read [markdown]
# ### A model on it
#
# Registration is one line, and then a user's word is enough: the selector asks your class, like any other. The model of the next cell has weights
# without sense; what counts is that it says the same on your backend as on one that keeps keys and values of all heads. The cache of
# the second engine is so small that a request loses its blocks on the way, and prompts begin alike.

# %% predict-room
# Predict: the tiny model has 4 heads of 32 numbers, a latent of 32 and a position's part of 8. How many times smaller is its cache?
prediction_room = None

# %% q12-model
backends.register_backend(backends.AttentionBackendEnum.CUSTOM)(LatentBackend)
chosen = backends.get_attn_backend(40, torch.float32, use_mla=True, backend="CUSTOM")
config = tiny_model.TinyConfig(kv_lora_rank=32)
prompts = [[5, 9, 13, 2, 40, 41, 42, 43, 1, 2], [5, 9, 13, 2, 40, 41, 42, 43, 7], [3, 1, 4, 1, 5]]
print("You predicted:", prediction_room)
for name, backend, room in (
    ("dense, room for all", dense_torch.DenseTorchBackend, 40),
    (f"{chosen.__name__}, room for all", chosen, 40),
    (f"{chosen.__name__}, 6 blocks", chosen, 6),
):
    model = tiny_model.TinyModel(config, backend, device=device)
    served = engine.Engine(model, num_blocks=room, block_size=4, max_num_batched_tokens=10)
    said = served.generate(prompts, 5)
    numbers = next(iter(served.layers.values())).kv_cache.numel() // (room * 4)
    print(f"{name}: {numbers} numbers a token and layer, {served.num_preemptions} preemptions, {said}")
print(
    f"Keys and values of 4 heads are {2 * 4 * 32}, a latent and its position {32 + 8}: {2 * 4 * 32 / (32 + 8):.1f} times smaller."
)

# %% q12-reuse-read [markdown]
# ### What you did not write
#
# *8 minutes, 4 points.* Eighteen parts of a serving engine. For **your** three classes as they are above: which did you
# `"implement"`, which do you `"reuse"` as they are, which are `"not needed"`? Where it can be seen, your answer is held against what your
# classes really define and call.

# %% q12-reuse-parts
reuse_parts.show()

# %% q12-reuse-code nbgrader={"solution": true}
q12_reuse = dict.fromkeys(reuse_parts.PARTS, "")
# q12_reuse["block_pool"] = "implement", "reuse" or "not needed", and so on
### BEGIN SOLUTION
q12_reuse = {
    # They count blocks and tokens, and never look into a row.
    **dict.fromkeys(["block_pool", "scheduler", "prefix_sharing", "block_table", "slot_mapping"], "reuse"),
    # They know a backend by its three classes.
    **dict.fromkeys(["rotation", "projections", "forward_context", "selector"], "reuse"),
    # The three classes.
    **dict.fromkeys(
        ["description", "cache_shape", "cache_write", "metadata_builder", "attention"], "implement"
    ),
    # Right without them; fast is another day.
    **dict.fromkeys(["prefill_kernel", "split_kv_merge", "cuda_graphs", "fp8_scales"], "not needed"),
}
### END SOLUTION

# %% q12-reuse nbgrader={"grade": true, "points": 4}
autograder.check("q12_reuse", (q12_reuse, LatentBackend, LatentImpl, LatentMetadataBuilder))
### BEGIN HIDDEN TESTS
autograder.check("q12_reuse", (q12_reuse, LatentBackend, LatentImpl, LatentMetadataBuilder), suite="hidden")
### END HIDDEN TESTS

# %% q12-reuse-hints [markdown]
# <details><summary>Hint: how do I tell?</summary>
#
# Does the part look into a token's row, or does it only count blocks and tokens? Whoever only counts serves you as it is.
#
# </details>
#
# <details><summary>Hint: "not needed" or "reuse"?</summary>
#
# Reused is what runs when your backend runs. What does not run at all is not needed.
#
# </details>
#
# More: `autograder.hint("q12_reuse")`.

# %% q12-explain-read [markdown]
# **In your own words** (6 points, graded by hand; half a page). You present the backend to the team.
#
# 1. Which decisions change the **bytes** that a token takes and a decode reads, and which change the **multiplications**? Name two
#    of each.
# 2. vLLM computes prompts unabsorbed and decodes absorbed. Why, and which of your numbers above says so? What does your backend pay?
# 3. What would you build next to make it fast, in which order, and how would you notice that you broke it?

# %% q12-explain [markdown] nbgrader={"grade": true, "solution": true, "points": 6}
# ### BEGIN SOLUTION
# **Model answer.** *Bytes* are decided by what is cached: the latent's rank and the part for the position (576 numbers instead of 2 · 8 · 128, or
# of 128 heads' keys and values), the absence of a value cache, and the cache's dtype (fp8 would halve them). A decode reads each row
# once for all heads, which is what GQA does for the heads of a group, taken to its end. *Multiplications* are decided by where the brackets stand: absorbed, each pair of query
# and key costs 576 + 512 a head, and W_UK and W_UV are applied once a query token; unabsorbed a pair costs 192 + 128, but the
# projections are applied once a *cached* token. The number of heads and the mask change multiplications too and no byte of the cache.
#
# A decode has one query and thousands of cached tokens: unabsorbed it would project all of them again in each step (69 against 0.6 times 10⁹ multiplications
# over 4096 tokens), and would have to write and read keys and values of 128 heads, the very bytes that the latent saves. A prompt has as many queries
# as new tokens: the projections cost the same on both sides and pairs decide, 3.4 times cheaper unabsorbed. My backend absorbs always: right, and it pays
# 3 times the multiplications on a prompt of 4096. Chunks lie between, and a threshold on the query length decides.
#
# Next: (1) the kernel for decodes, `latent_decode`, with split-KV, since decodes dominate; metadata in tensors in place of lists, so that nothing waits for
# the GPU; (2) CUDA graphs for uniform decodes, which need that metadata to stay where it is; (3) a path for prompts with
# keys and values of each head, and states merged where a chunk meets its context; (4) fp8 with a scale. After each one the conformance suite, the
# tiny model's tokens, and a benchmark that says whether it was worth it. Numbers that drift would be noticed by the suite's tolerance, wrong graphs by
# replaying a batch of other lengths.
#
# **Rubric, 2 points each**
# - *Bytes and multiplications kept apart*: two right decisions of each (1 point a side). Saying that absorption saves cache bytes costs half a point:
#   it saves traffic and work, the cache is small either way.
# - *Why two ways*: decode by its few queries over many cached tokens (1), prompt by the cheaper pair once the projections are
#   equal (1). A number from the cell or a formula belongs to it.
# - *Next*: an order with a reason (1); a test for each step that could fail (1).
# ### END SOLUTION

# %% q12-extension [markdown]
# **If you have time left.** Put `kernels.latent_decode` in the place of your loop. It takes one query token a request, so let the
# builder make each query token a request of its own: a row of the block table and a length for each token. Then a decode's metadata can be the
# batch's own tensors, and you may claim `AttentionCGSupport.UNIFORM_SINGLE_TOKEN_DECODE`; the check tries whether it is true.
# `kernels/backends/triton_mla.py` is such a backend.
#
# **Where this lives in vLLM 0.22.1**
#
# | role | place |
# | --- | --- |
# | the layer, with both ways | `layers/attention/mla_attention.py:322` (`MLAAttention`) |
# | what its backends have in common | `layers/attention/mla_attention.py:1166` (`MLACommonBackend`), `layers/attention/mla_attention.py:1360` (`MLACommonMetadataBuilder`), `layers/attention/mla_attention.py:1925` (`MLACommonImpl`) |
# | the cache's shape | `layers/attention/mla_attention.py:1176` (`MLACommonBackend.get_kv_cache_shape`) |
# | the write | `vllm/_custom_ops.py:2613` (`concat_and_cache_mla`) |
# | a backend in Triton | `backends/mla/triton_mla.py:81` (`TritonMLAImpl`): 20 lines of capabilities, one method that computes |
# | W_UV, after the backend | `layers/attention/mla_attention.py:972` (`MLAAttention._v_up_proj`) |
# | a place for yours | `vllm/v1/attention/backends/registry.py:90` (`CUSTOM`) |
#
# **Reading.** DeepSeek-V2 (arXiv 2405.04434), section 2.1, for the idea and the absorption; the comment at the head of vLLM's
# `mla_attention.py` for both ways of computing, in code's own letters; FlashMLA's repository for a kernel that is bound by
# arithmetic at 128 heads. `kernels/latent.py` says the same of ours.
#
# **Natural stop.**

# %% q13-read [markdown]
# ## Part 3: Garbage
#
# *50 minutes, ●●●, question 13: 10 points for the tester, 6 for the minimiser, 6 for the names, 6 for the explanation.*
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
# - Fields: `num_heads`, `num_kv_heads`, `block_size`, `window`, `layout`, `dtype`, `kv_dtype` ("auto", "fp8") with `k_scale` and `v_scale`, `magnitude`, `unowned` (what nobody's slots hold: "nan", "zeros", "large"), `lowest_block`, `seed`.
# - The `layout` "NHD" is a cache `[num_blocks, block_size, num_kv_heads, head_size]`, as in lesson 3; in "HND" block_size and num_kv_heads
#   have changed places.
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

# %% self-grading-read [markdown]
# ## Part 4: Grade yourself
#
# *10 minutes, ●○○, nothing graded.* Thirteen questions, as an interviewer would ask them. Answer each aloud, in a minute, without
# scrolling up; then open its fold and give yourself a mark: **2** could explain it to somebody, **1** half of it or with help, **0** could not
# answer. The cell below the folds makes a reading plan of your marks (`notes`).
#
# An interviewer listens for three things: do you name the *thing* (file, class, tensor), do you know what it *costs*, and what *breaks* without
# it.
#
# <details><summary>1. Why does vLLM have many attention backends?</summary>
#
# Because a kernel is fast for a corner: a GPU generation, dtypes, head sizes, block sizes, a kind of cache. Each backend says what speaks
# against it; an ordered list for each capability decides among the rest. <i>Asked next:</i> which one on an H100 with bf16, and which
# with attention sinks?
#
# </details>
#
# <details><summary>2. Which metadata does a paged kernel need?</summary>
#
# slot_mapping to write each new token, block_table and seq_lens to read each request, query_start_loc to tell the requests of a flat batch apart.
# Lengths count this step's tokens. <i>Asked next:</i> why is slot −1 there, and what do entries past a request's end hold?
#
# </details>
#
# <details><summary>3. How can softmax be computed block by block?</summary>
#
# Keep maximum, sum and weighted values; when the maximum grows, rescale both by e to the old minus the new. States merge in any
# order, which split-KV and prefix sharing rest on. <i>Asked next:</i> what is the state of an empty block, and where does NaN come from?
#
# </details>
#
# <details><summary>4. What does the model not know about its kernel?</summary>
#
# Anything of the batch and of the backend: it passes query, key and value. The runner puts metadata and slots into the forward context, the layer's
# operators take them out by the layer's name. <i>Asked next:</i> what happens when nobody set the slots? No error: another text.
#
# </details>
#
# <details><summary>5. What are a backend's three classes for?</summary>
#
# The backend describes (as a class, before there is a model), the builder prepares (once a step), the impl computes (in every layer). Building is
# apart because layers share it and because CUDA graphs need its tensors to stay in place. <i>Asked next:</i> who says whether graphs are
# supported?
#
# </details>
#
# <details><summary>6. Where is the cache written, where is it read?</summary>
#
# Written by do_kv_cache_update through unified_kv_cache_update, with the slot mapping as an argument; read in forward, with the block table out of the
# metadata. forward_includes_kv_cache_update says whether the write is apart. <i>Asked next:</i> how would you find that out in a
# release you have never seen?
#
# </details>
#
# <details><summary>7. What does the selector look at, and how does a user override it?</summary>
#
# Head size, dtypes, block size, MLA, sinks, kind of attention, and the GPU; nothing of the traffic. --attention-backend asks one backend and takes no
# for an answer; the environment variable of older releases is ignored. <i>Asked next:</i> how do you prove which one ran? The log.
#
# </details>
#
# <details><summary>8. Why may blocks lie anywhere, and what must a kernel keep?</summary>
#
# Attention is a sum over tokens, and only the table knows where they lie: move blocks and table together and nothing changes. Keep: tails,
# order, contents not cached by number, other requests' blocks, inputs. <i>Asked next:</i> which test finds a kernel that sorts the table?
#
# </details>
#
# <details><summary>9. Write paged decode with many heads, and say what it reads.</summary>
#
# A program for a request and kv head, its query heads as the rows of a tile; kv head = head // num_queries_per_kv; each key is read once.
# Float32 inside, 64-bit block offsets, −inf past the end. <i>Asked next:</i> what bounds it? Bytes: about four operations for each.
#
# </details>
#
# <details><summary>10. Make it causal, for chunks, and parallel over one sequence.</summary>
#
# Query i of n sits at seq_len − n + i, so chunks equal one shot. For few long requests split the sequence, write (output, lse) in float32
# for each share, merge with weights e to the lse. <i>Asked next:</i> what does an empty share store?
#
# </details>
#
# <details><summary>11. How do you show that one backend is faster?</summary>
#
# A hypothesis with what would refute it, the same inputs for both, warm-up, repetitions, percentiles with their spread; TTFT and ITL apart,
# goodput under a target. Conclude no more than the intervals allow. <i>Asked next:</i> name two ways in which the comparison could be unfair.
#
# </details>
#
# <details><summary>12. Bring a new kind of attention into vLLM.</summary>
#
# Say what a token's row is; then the cache's shape, a write, a builder, a read. Pool, scheduler, tables, context and selector serve as they are. Absorbed
# for decodes, unabsorbed for prompts. <i>Asked next:</i> how do you know it is right before it is fast? A suite and a dense reference.
#
# </details>
#
# <details><summary>13. A model says garbage with one backend. Find out why.</summary>
#
# Same inputs through two backends, first layer and first token that differ, then the smallest case that still fails, cut one thing at a time; the
# batch may be a part of it. Each family of faults has its own sign: tails, windows, offsets, head maps, layouts, log bases. <i>Asked next:</i> what would you change
# so that it is found earlier next time?
#
# </details>

# %% self-grading-questions
from course import self_grading

self_grading.questions()

# %% self-grading
notes = dict.fromkeys(self_grading.QUESTIONS, 1)  # change: 0, 1 or 2 for each
# notes["q1"] = 2
self_grading.plan(notes)

# %% remember [markdown]
# ### What to remember
#
# - **A kernel's number is not a server's.** Attention is a part of a step, and near capacity queues make small differences large.
# - **Name what would refute the claim before you run**, at a load where the figure has a value: below capacity for latencies, at saturation
#   for throughput.
# - **Same traffic, same server, same cache; warm-up cut; the claimed percentile; six runs or more.** What differs besides the kernel is
#   measured along with it.
# - **An interval decides, its middle does not.** Say as much as it shows and no less, for what ran and nothing else.
# - **A new kind of attention is a row, a write and a read.** Whatever counts blocks and tokens serves it unchanged.
# - **What is cached decides the bytes; where the brackets stand decides the multiplications.**
# - **Absorb where queries are few and cached tokens many**; a prompt is cheaper with keys and values of each head.
# - **Claim what you do**: a backend's yes is believed until a kernel fails, or worse, does not.
# - **The cache is all there is.** What an impl remembers besides is wrong as soon as a block moves.
# - **Same input, two backends, the first difference**: no source needed. The batch is a part of the input.
# - **A fault shows on one kind of input.** A test is a list of kinds; what is kind hides: full blocks, zeros, powers of two, one step.
# - **Allow the budget and not a bit more.** A tester that accuses right backends is switched off.
# - **What is left in a minimal case names the fault.** Then predict, and let the prediction decide.
#
# Before you hand in: **Kernel → Restart Kernel and Run All Cells**, then **Validate**.
