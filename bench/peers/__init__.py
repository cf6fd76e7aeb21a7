"""Other implementations of paged attention, each behind the interface of bench/contender.py.

An adapter imports its peer when it is asked to prepare a case, so that all can be listed where none is installed.
"""

from bench.peers import flash_attention_3, flashinfer, flex_attention, sdpa, vllm_triton

PEERS = (
    *vllm_triton.CONTENDERS,
    *flash_attention_3.CONTENDERS,
    *flashinfer.CONTENDERS,
    *flex_attention.CONTENDERS,
    *sdpa.CONTENDERS,
)
