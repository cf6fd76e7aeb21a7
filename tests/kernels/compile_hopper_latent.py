"""Compile latent decode's Gluon program for sm_90 as its launcher would launch it, on a machine without a GPU.

A script for test_hopper_latent.py: it has to run with TRITON_INTERPRET=0, in a process of its own. Prints one JSON line
for each launch: shared memory, bytes of registers that spill, whether ptxas lets products run beside other work, and how
often the tensor cores and the copy engine are asked.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.experimental.gluon._runtime import GluonASTSource

from kernels import hopper_latent, hopper_latent_kernel, runtime

TYPES = {
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.int32: "i32",
}
PTXAS = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"


class CompileOnly:
    """Stands for the @gluon.jit function: kernel[grid](...) compiles and reports."""

    def __init__(self, kernel, launch):
        self.kernel = kernel
        self.launch = launch

    def __getitem__(self, grid):
        return self.compile

    def compile(self, *args, num_warps, **constants):
        signature, constexprs, attributes = {}, {}, {}
        for index, (name, value) in enumerate(zip(self.kernel.arg_names, args, strict=False)):
            if hasattr(value, "block_shape"):
                box = f"{TYPES[value.base.dtype]}{value.block_shape}"
                signature[name] = f"tensordesc<{box},{value.layout!r}>"
            elif isinstance(value, torch.Tensor):
                signature[name] = "*" + TYPES[value.dtype]
                attributes[(index,)] = [["tt.divisibility", 16]]
            elif isinstance(value, int):
                signature[name] = "i32"
                if value % 16 == 0 and name.startswith("stride_out"):
                    attributes[(index,)] = [["tt.divisibility", 16]]
            else:
                signature[name] = "fp32"
        for name, value in constants.items():
            signature[name], constexprs[name] = "constexpr", value
        source = GluonASTSource(self.kernel, signature, constexprs, attributes)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": num_warps})
        ptx = compiled.asm["ptx"]
        with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
            file.write(ptx)
            file.flush()
            command = [PTXAS, "-v", "--gpu-name=sm_90a", file.name, "-o", "/dev/null"]
            log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        report = {
            "launch": self.launch,
            "shared": compiled.metadata.shared,
            "spilled": sum(int(number) for number in re.findall(r"(\d+) bytes spill stores", log)),
            "serialized": "wgmma" in log,
            "wgmma": ptx.count("wgmma.mma_async"),
            "tma": ptx.count("cp.async.bulk.tensor"),
        }
        print(json.dumps(report), flush=True)
        return compiled


def main():
    runtime.num_multiprocessors = lambda device: 132
    hopper_latent.launch_merge = lambda *arguments: None
    kernel = hopper_latent_kernel.latent_decode_hopper_kernel
    for dtype, num_reqs, num_heads, block_size in json.loads(sys.argv[1]):
        launch = f"{dtype} {num_reqs} requests, {num_heads} heads, blocks of {block_size}"
        hopper_latent_kernel.latent_decode_hopper_kernel = CompileOnly(kernel, launch)
        query = torch.zeros(num_reqs, num_heads, 576, dtype=getattr(torch, dtype))
        cache = torch.zeros(64, block_size, 576, dtype=query.dtype)
        table = torch.zeros(num_reqs, 4096 // block_size, dtype=torch.int32)
        lens = torch.full((num_reqs,), 256, dtype=torch.int32)
        out, lse = query[..., :512].contiguous(), torch.zeros(num_reqs, num_heads)
        hopper_latent.launch_latent_decode(query, cache, table, lens, 0.1, out, lse)


if __name__ == "__main__":
    main()
