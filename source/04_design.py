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
# | **how long attention takes in it** | an H100's times from the course's benchmark, fitted, with the noise of its runs. It is a **replay**, and every output says so |
# | **how long the rest takes** | a constant: 8 billion parameters, read once a step, computed once a token |
#
# On a GPU of your own, `serving.run(plan, source="gpu")` times the kernels as steps need them, ours through the backends of lesson 2 and
# FlashAttention, FlashInfer and vLLM's Triton kernel where they are installed. What is graded is the replay: it is the same everywhere.

# %% q11-setup nbgrader={"locked": true}
from course.serving import kernel_times, metrics, step_times, workload
from course.serving.simulate import Server, Step, simulate

serving = course.serving
print("contenders:", "; ".join(kernel_times.contenders()))
print(kernel_times.describe(kernel_times.contenders()))
print(step_times.describe_rest())

# %% q11-step-read [markdown]
# ### A step is more than attention
#
# Three steps, each with one layer's attention as measured or fitted, times 32 layers, and the rest of the model.

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
# Take a row of the kernels' table (<code>bench/results/nvidia-h100.md</code>, or <code>kernel_times.committed()</code>) where two contenders
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
# cost nothing here, nor other GPUs and other models. Next I would run the same plan on a real H100: first the kernels at the shapes that steps really
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

# %% q13-read [markdown]
# ## Part 3: Garbage

# %% remember [markdown]
# ### What to remember
#
# - **A kernel's number is not a server's.** Attention is a part of a step, and near capacity queues make small differences large.
# - **Name what would refute the claim before you run**, at a load where the figure has a value: below capacity for latencies, at saturation
#   for throughput.
# - **Same traffic, same server, same cache; warm-up cut; the claimed percentile; six runs or more.** What differs besides the kernel is
#   measured along with it.
# - **An interval decides, its middle does not.** Say as much as it shows and no less, for what ran and nothing else.
