"""Compile the Gluon program for sm_90 as its launcher would launch it, on a machine without a GPU.

A script for test_hopper_prefill.py: it has to run with TRITON_INTERPRET=0, in a process of its own. Prints one JSON line
for each launch: shared memory, bytes of registers that spill, and how often the tensor cores and the copy engine are
asked.
"""

import contextlib
import io
import json
import re
import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.experimental.gluon._runtime import GluonASTSource

from kernels import hopper_prefill, hopper_prefill_kernel, runtime
from kernels.options import ScoreOptions

TYPES = {
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.int32: "i32",
}


class CompileOnly:
    """Stands for the @gluon.jit function: kernel[grid](...) compiles and reports."""

    def __init__(self, kernel, launch):
        self.kernel = kernel
        self.launch = launch

    def __getitem__(self, grid):
        return self.compile

    def compile(self, *args, C, num_warps):
        signature, attributes = {}, {}
        names = self.kernel.arg_names
        for index, (name, value) in enumerate(zip(names, args, strict=False)):
            if hasattr(value, "block_shape"):
                dtype = TYPES[value.base.dtype]
                signature[name] = f"tensordesc<{dtype}{value.block_shape},{value.layout!r}>"
            elif isinstance(value, torch.Tensor):
                signature[name] = "*" + TYPES[value.dtype]
                attributes[(index,)] = [["tt.divisibility", 16]]
            elif isinstance(value, int):
                signature[name] = "i32"
                if value % 16 == 0 and name.startswith("stride_out"):
                    attributes[(index,)] = [["tt.divisibility", 16]]
            else:
                signature[name] = "fp32"
        signature["C"] = "constexpr"
        source = GluonASTSource(self.kernel, signature, {"C": C}, attributes)
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            compiled = triton.compile(
                source, target=GPUTarget("cuda", 90, 32), options={"num_warps": num_warps}
            )
        ptx, log = compiled.asm["ptx"], said.getvalue()
        assert "bytes spill stores" in log, f"nothing said by ptxas (compiled before?): {self.launch}"
        report = {
            "launch": self.launch,
            "consumers": C.CONSUMERS,
            "shared": compiled.metadata.shared,
            "spilled": sum(int(number) for number in re.findall(r"(\d+) bytes spill stores", log)),
            "serialized": "wgmma" in log,
            "wgmma": ptx.count("wgmma.mma_async"),
            "tma": ptx.count("cp.async.bulk.tensor"),
        }
        print(json.dumps(report), flush=True)


def main():
    triton.knobs.nvidia.dump_ptxas_log = True
    runtime.num_multiprocessors = lambda device: 132
    hopper_prefill._take_counter = lambda device: torch.zeros(4, dtype=torch.int32)
    kernel = hopper_prefill_kernel.paged_prefill_kernel
    for dtype, num_heads, num_kv_heads, head_size, block_size, options in json.loads(sys.argv[1]):
        launch = f"{dtype} {num_heads}/{num_kv_heads} heads of {head_size}, blocks of {block_size}, {options}"
        hopper_prefill_kernel.paged_prefill_kernel = CompileOnly(kernel, launch)
        num_tokens = options.get("tokens", 512)
        query = torch.zeros(num_tokens, num_heads, head_size, dtype=getattr(torch, dtype))
        cache = torch.zeros(64, block_size, num_kv_heads, head_size, dtype=query.dtype)
        table = torch.zeros(2, 4096 // block_size, dtype=torch.int32)
        lens = torch.tensor([256, 256], dtype=torch.int32)
        starts = torch.tensor([0, 256, num_tokens], dtype=torch.int32)
        per_head = torch.zeros(num_heads)
        hopper_prefill._launch(
            query,
            cache,
            cache,
            table,
            lens,
            starts,
            1.0,
            ScoreOptions(
                causal=options.get("causal", True),
                sliding_window=options.get("window"),
                softcap=options.get("softcap"),
                alibi_slopes=per_head if options.get("alibi") else None,
                sinks=per_head if options.get("sinks") else None,
            ),
            torch.empty_like(query),
            torch.zeros(num_tokens, num_heads) if options.get("lse") else None,
        )


if __name__ == "__main__":
    main()
