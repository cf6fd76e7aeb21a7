"""Compile every kernel for sm_90, as its launcher would launch it, on a machine without a GPU.

A script for test_compile.py: it has to run with TRITON_INTERPRET=0, in a process of its own. It stands between
launchers and Triton: a launch is not run but compiled, with the types and constants that came. Prints one JSON line
for each kernel: its name, the launch, the shared memory that it needs, and how its warps share products' rows and columns.
"""

import contextlib
import json
import re
import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import kernels
from kernels import decode, kv_cache, latent, merge, prefill, runtime

HOPPER = GPUTarget("cuda", 90, 32)
TYPES = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.uint8: "*u8",
    torch.float8_e4m3fn: "*fp8e4nv",
    torch.float8_e5m2: "*fp8e5",
}


class CompileOnly:
    """Stands for a @triton.jit function: kernel[grid](...) compiles and reports."""

    def __init__(self, kernel, launch):
        self.kernel = kernel
        self.launch = launch

    def __getitem__(self, grid):
        return self.compile

    def compile(self, *args, num_warps=4, num_stages=3, maxnreg=None, **constants):
        signature, constexprs, attributes = {}, {}, {}
        for index, (name, value) in enumerate(zip(self.kernel.arg_names, args, strict=False)):
            if value is None:
                signature[name], constexprs[name] = "constexpr", None
            elif isinstance(value, torch.Tensor):
                signature[name] = TYPES[value.dtype]
                attributes[(index,)] = [["tt.divisibility", 16]]
            elif isinstance(value, int) and value == 1:
                signature[name], constexprs[name] = "constexpr", 1
            elif isinstance(value, int):
                signature[name] = "i32" if abs(value) < 2**31 else "i64"
                if value % 16 == 0:
                    attributes[(index,)] = [["tt.divisibility", 16]]
            else:
                signature[name] = "fp32"
        for name, value in constants.items():
            signature[name], constexprs[name] = "constexpr", value
        source = ASTSource(self.kernel, signature, constexprs, attributes)
        options = {"num_warps": num_warps, "num_stages": num_stages}
        if maxnreg is not None:
            options["maxnreg"] = maxnreg
        compiled = triton.compile(source, target=HOPPER, options=options)
        report = {
            "kernel": self.kernel.fn.__name__,
            "launch": self.launch,
            "shared": compiled.metadata.shared,
            "mma_warps": re.findall(r"nvidia_mma<.*?warpsPerCTA = \[(\d+), (\d+)\]", compiled.asm["ttgir"]),
        }
        print(json.dumps(report), flush=True)


@contextlib.contextmanager
def compiling(launch):
    homes = [
        (decode, "_paged_decode_kernel"),
        (latent, "_latent_decode_kernel"),
        (kv_cache, "_reshape_and_cache_kernel"),
        (merge, "_merge_attn_states_kernel"),
        (merge, "_merge_splits_kernel"),
        (prefill, "_paged_prefill_kernel"),
    ]
    kept = [(module, name, getattr(module, name)) for module, name in homes]
    for module, name, kernel in kept:
        setattr(module, name, CompileOnly(kernel, launch))
    try:
        yield
    finally:
        for module, name, kernel in kept:
            setattr(module, name, kernel)


def compile_all(dtype, num_heads, num_kv_heads, head_size, block_size):
    launch = f"{dtype} {num_heads}/{num_kv_heads} heads of {head_size}, blocks of {block_size}"
    cache = torch.zeros(64, block_size, num_kv_heads, head_size, dtype=dtype)
    table = torch.zeros(2, 1024 // block_size, dtype=torch.int32)
    seq_lens = torch.tensor([1, 2], dtype=torch.int32)
    with compiling(launch):
        query = torch.zeros(2, num_heads, head_size, dtype=dtype)
        kernels.paged_decode(query, cache, cache, table, seq_lens, 1.0)  # with splits, so it merges as well
        new = torch.zeros(2, num_kv_heads, head_size, dtype=dtype)
        kernels.reshape_and_cache(new, new, cache, cache, torch.arange(2))
        query = torch.zeros(512, num_heads, head_size, dtype=dtype)
        starts = torch.tensor([0, 256, 512], dtype=torch.int32)
        lens = torch.tensor([256, 256], dtype=torch.int32)
        kernels.paged_attention(query, cache, cache, table, lens, starts, 1.0)
        # Tiles for many programs, whatever the batch, and what takes the most registers.
        kernels.paged_attention(query, cache, cache, table, lens, starts, 1.0, batch_invariant=True)
        everything = {"softcap": 9.0, "sliding_window": 99, "alibi_slopes": torch.zeros(num_heads)}
        kernels.paged_attention(
            query, cache, cache, table, lens, starts, 1.0, batch_invariant=True, **everything
        )


def compile_features(dtype):
    """Every switch of the prefill kernel on, an fp8 cache, few tokens so that keys are split; latents."""
    with compiling(f"{dtype} features"):
        query = torch.zeros(512, 32, 128, dtype=dtype)
        table = torch.zeros(2, 64, dtype=torch.int32)
        starts = torch.tensor([0, 256, 512], dtype=torch.int32)
        lens = torch.tensor([256, 256], dtype=torch.int32)
        heads, kv_heads = torch.ones(32), torch.ones(8)
        for cache_dtype in (dtype, torch.float8_e4m3fn, torch.float8_e5m2):
            cache = torch.zeros(64, 16, 8, 128, dtype=cache_dtype)
            options = {"k_scale": kv_heads, "v_scale": kv_heads[:1]}
            kernels.reshape_and_cache(query[:, :8], query[:, :8], cache, cache, torch.arange(512), **options)
            options |= {"sliding_window": 100, "softcap": 30.0, "alibi_slopes": heads, "sinks": heads}
            if cache_dtype != torch.float8_e5m2:  # another conversion, which the next one has too
                kernels.paged_prefill(query, cache, cache, table, lens, starts, 1.0, **options)
            kernels.paged_prefill(query[:16], cache, cache, table, lens, starts // 32, 1.0, causal=False)
        for num_heads in (16, 128):
            latents = torch.zeros(64, 64, 576, dtype=dtype)
            query = torch.zeros(2, num_heads, 576, dtype=dtype)
            kernels.latent_decode(query, latents, table, lens, 1.0, kv_lora_rank=512)


def compile_ones():
    """Everything of size one: Triton turns an argument that is 1 into a constant, which is another program."""
    with compiling("all ones"):
        query = torch.zeros(1, 1, 1, dtype=torch.float16)
        cache = torch.zeros(1, 1, 1, 1, dtype=torch.float16)
        table = torch.zeros(1, 1, dtype=torch.int32)
        seq_lens = torch.ones(1, dtype=torch.int32)
        starts = torch.tensor([0, 1], dtype=torch.int32)
        kernels.paged_decode(query, cache, cache, table, seq_lens, 1.0)
        kernels.reshape_and_cache(query, query, cache, cache, torch.zeros(1, dtype=torch.int64))
        kernels.paged_attention(query, cache, cache, table, seq_lens, starts, 1.0)
        kernels.latent_decode(query, cache[:, :, 0], table, seq_lens, 1.0, kv_lora_rank=1)
        kernels.merge_attn_states(query[None], torch.zeros(1, 1, 1))


if __name__ == "__main__":
    # The launchers' own checks of the machine do not apply: nothing is run.
    runtime.check_launch = lambda name, tensor: None
    runtime.num_multiprocessors = lambda device: 132
    runtime.shared_memory = lambda device: 227 * 1024
    for name, *sizes in json.loads(sys.argv[1]):
        compile_all(getattr(torch, name), *sizes)
    compile_features(torch.bfloat16)
    compile_ones()
