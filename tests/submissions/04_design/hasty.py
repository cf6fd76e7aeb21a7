# One run and no warm-up, everything written anew, a tester that compares bits, and a guess for every backend.

# %% q11-plan-code
q11_plan = {
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
            "arrivals": {"process": "poisson", "rate": 5, "burstiness": 1.0},
            "prompt_tokens": {"distribution": "uniform", "low": 2048, "high": 4096},
            "output_tokens": {"distribution": "uniform", "low": 16, "high": 64},
            "shared_prefix_tokens": 0,
            "num_requests": 100,
        }
    },
    "metrics": {"ttft_ms": ["p50", "p90"], "itl_ms": ["p50", "p99"], "goodput_per_s": ["rate"]},
    "target": {"ttft_ms": 200, "tpot_ms": 20},
    "warm_up_s": 0,
    "repetitions": 1,
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

# %% q12-reuse-code
q12_reuse = dict.fromkeys(reuse_parts.PARTS, "implement")


# %% q13-detect-code
def is_faulty(backend):
    case = differential.Case.of([13, 6])
    output, lse = backend(case)[0]
    right_output, right_lse = differential.reference(case)[0]
    return bool((output != right_output).any())


# %% q13-name-code
q13_diagnosis = dict.fromkeys(NAMES, "window")

# %% q13-explain
The default kernel must be the one that is right.
