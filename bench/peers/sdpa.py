"""torch's scaled_dot_product_attention on dense keys and values: what no paging at all would cost."""

from collections.abc import Callable

import torch

from bench.contender import Contender, refuse, refuse_unusual
from bench.inputs import Inputs


def prepare(inputs: Inputs) -> Callable[[], torch.Tensor]:
    """Its output is [num_reqs, num_heads, n_q, head_size]."""
    refuse_unusual(inputs)
    requests = inputs.case.requests
    refuse(len(set(requests)) != 1, "one call does requests of one length only")
    n_q, seq_len = requests[0]
    refuse(n_q not in (1, seq_len), "its causal mask takes the queries for the first tokens, not the last")
    pairs = [inputs.gather(request) for request in range(len(requests))]
    key, value = (torch.stack(dense).transpose(1, 2).contiguous() for dense in zip(*pairs, strict=True))
    query = inputs.query.unflatten(0, (len(requests), n_q)).transpose(1, 2).contiguous()
    return lambda: torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=n_q > 1, scale=inputs.scale, enable_gqa=True
    )


CONTENDERS = (
    Contender("torch SDPA, dense", prepare, paged=False, note="contiguous keys and values, no block table"),
)
