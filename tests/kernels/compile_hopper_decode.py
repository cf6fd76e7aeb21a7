"""Compile decode's Gluon program for sm_90 as its launcher would launch it, on a machine without a GPU.

A script for test_hopper_decode.py: it has to run with TRITON_INTERPRET=0, in a process of its own. Prints one JSON line
for each launch: shared memory, and how often the tensor cores and the copy engine are asked.
"""

import json
import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.experimental.gluon._runtime import GluonASTSource

from kernels import hopper_decode, hopper_decode_kernel, hopper_decode_merge, runtime
from kernels.options import ScoreOptions

TYPES = {
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.int32: "i32",
}


class CompileOnly:
    """Stands for a jitted function: kernel[grid](...) compiles and reports."""

    def __init__(self, kernel, source_class, launch):
        self.kernel = kernel
        self.source_class = source_class
        self.launch = launch

    def __getitem__(self, grid):
        return self.compile

    def compile(self, *args, num_warps, launch_pdl, maxnreg=None, **constants):
        signature, constexprs, attributes = {}, {}, {}
        for index, (name, value) in enumerate(zip(self.kernel.arg_names, args, strict=False)):
            if value is None:
                signature[name], constexprs[name] = "constexpr", None
            elif hasattr(value, "block_shape"):
                box = f"{TYPES[value.base.dtype]}{value.block_shape}"
                signature[name] = f"tensordesc<{box},{value.layout!r}>"
            elif isinstance(value, torch.Tensor):
                signature[name] = "*" + TYPES[value.dtype]
                attributes[(index,)] = [["tt.divisibility", 16]]
            else:
                signature[name] = "i32" if isinstance(value, int) else "fp32"
        for name, value in constants.items():
            signature[name], constexprs[name] = "constexpr", value
        options = {"num_warps": num_warps, "launch_pdl": launch_pdl}
        if maxnreg is not None:
            options["maxnreg"] = maxnreg
        source = self.source_class(self.kernel, signature, constexprs, attributes)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
        ptx = compiled.asm["ptx"]
        report = {
            "kernel": self.kernel.fn.__name__,
            "launch": self.launch,
            "shared": compiled.metadata.shared,
            "wgmma": ptx.count("wgmma.mma_async"),
            "tma": ptx.count("cp.async.bulk.tensor"),
        }
        print(json.dumps(report), flush=True)


def main():
    runtime.num_multiprocessors = lambda device: 132
    decode, merging = (
        hopper_decode_kernel.paged_decode_hopper_kernel,
        hopper_decode_merge._merge_shares_kernel,
    )
    for dtype, num_heads, num_kv_heads, head_size, block_size, features in json.loads(sys.argv[1]):
        launch = (
            f"{dtype} {num_heads}/{num_kv_heads} heads of {head_size}, blocks of {block_size}, {features}"
        )
        hopper_decode_kernel.paged_decode_hopper_kernel = CompileOnly(decode, GluonASTSource, launch)
        hopper_decode_merge._merge_shares_kernel = CompileOnly(merging, ASTSource, launch)
        query = torch.zeros(3, num_heads, head_size, dtype=getattr(torch, dtype))
        cache = torch.zeros(64, block_size, num_kv_heads, head_size, dtype=query.dtype)
        table = torch.zeros(3, 4096 // block_size, dtype=torch.int32)
        lens = torch.tensor([256, 256, 0], dtype=torch.int32)
        options = {}
        if features:
            options = {"sliding_window": 99, "softcap": 20.0, "alibi_slopes": torch.zeros(num_heads)}
            options["sinks"] = torch.zeros(num_heads)
        lse = torch.zeros(3, num_heads)
        hopper_decode.launch_decode(
            query, cache, cache, table, lens, 0.1, ScoreOptions(**options), query, lse
        )


if __name__ == "__main__":
    main()
