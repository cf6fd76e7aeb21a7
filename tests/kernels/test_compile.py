"""Every kernel compiles for Hopper, also on a machine without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "compile_for_hopper.py"
HOPPER_SHARED_MEMORY = 227 * 1024  # bytes that one program can have

# (dtype, num_heads, num_kv_heads, head_size, block_size)
LAUNCHES = [("bfloat16", 32, 8, 128, 16), ("float16", 28, 4, 80, 24), ("float32", 8, 2, 256, 16)]


@pytest.mark.slow
def test_kernels_compile_for_hopper(tmp_path):
    environment = os.environ | {
        "TRITON_INTERPRET": "0",
        "TRITON_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, str(SCRIPT), json.dumps(LAUNCHES)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert {report["kernel"] for report in reports} == {
        "_paged_prefill_kernel",
        "_latent_decode_kernel",
        "_paged_decode_kernel",
        "_merge_attn_states_kernel",
        "_merge_splits_kernel",
        "_reshape_and_cache_kernel",
    }
    for report in reports:
        assert report["shared"] <= HOPPER_SHARED_MEMORY, report
    latents = [report for report in reports if report["kernel"] == "_latent_decode_kernel"]
    # 64 rows are 4 warps high: with 8 in a column, half of the warps would compute what the other half computes.
    assert any(["4", "2"] in report["mma_warps"] for report in latents), latents
    assert all(["8", "1"] not in report["mma_warps"] for report in latents), latents
