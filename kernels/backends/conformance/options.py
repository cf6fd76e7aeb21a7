"""Checks of a layer's options. A backend may lack some: it says so, by validate_configuration or when its impl is made."""

from dataclasses import replace
from typing import Any

import torch

from kernels.backends.backend import AttentionCGSupport
from kernels.backends.conformance.setup import ConformanceError, NotSupported, Setup, with_options
from kernels.backends.conformance.trial import Trial


def head_counts(setup: Setup) -> None:
    """Query head h reads kv head h // (num_heads // num_kv_heads), whatever the two numbers are."""
    counts = [(1, 1), (5, 1), (16, 1)] if setup.backend.is_mla() else [(3, 3), (8, 2), (7, 1)]
    for num_heads, num_kv_heads in counts:
        trial = Trial(replace(setup, num_heads=num_heads, num_kv_heads=num_kv_heads))
        requests = [trial.request(6), trial.request(setup.block_size + 2)]
        try:
            trial.step_right([(requests[0], 5), (requests[1], setup.block_size + 1)])
            trial.step_right([(request, 1) for request in requests])
        except ConformanceError as error:
            raise ConformanceError(f"with {num_heads} heads and {num_kv_heads} kv heads: {error}") from None


def head_sizes(setup: Setup) -> None:
    """Heads of any size that the backend says it takes, powers of two or not."""
    for changed in (replace(setup, head_size=head_size) for head_size in (16, 48, 80, 128)):
        if changed.objections():
            continue
        trial = Trial(changed)
        request = trial.request(setup.block_size + 3)
        try:
            trial.step_right([(request, setup.block_size + 1)])
            trial.step_right([(request, 1)])
        except ConformanceError as error:
            raise ConformanceError(f"with heads of {changed.head_size} numbers: {error}") from None


def sliding_window(setup: Setup) -> None:
    """With a window of w a query sees its own key and the w - 1 before it."""
    if setup.backend.is_mla():
        raise NotSupported("the layer for latents has no sliding window")
    size = setup.block_size
    for window in (1, size, size + 1):
        trial = Trial(with_options(setup, sliding_window=window))
        requests = [trial.request(2 * size + 3), trial.request(5)]
        try:
            trial.step_right([(requests[0], 2 * size + 2), (requests[1], 4)])
            trial.step_right([(request, 1) for request in requests])
        except ConformanceError as error:
            raise ConformanceError(f"with a window of {window}: {error}") from None


def softcap_and_alibi(setup: Setup) -> None:
    """Scores are bent by the cap, then lose slope * distance. A backend that cannot says so instead of leaving it out."""
    if setup.backend.is_mla():
        raise NotSupported("the layer for latents has neither")
    slopes = tuple(0.5**head for head in range(setup.num_heads))
    refusals = []
    options: dict[str, dict[str, Any]] = {
        "logits_soft_cap": {"softcap": 2.0},
        "alibi_slopes": {"alibi_slopes": slopes},
    }
    for name, changes in options.items():
        try:
            trial = Trial(with_options(setup, **changes))
        except NotSupported as refusal:
            refusals.append(f"{name}: {refusal}")
            continue
        request = trial.request(setup.block_size + 3, magnitude=3.0)
        try:
            trial.step_right([(request, setup.block_size + 1)])
            trial.step_right([(request, 1)])
        except ConformanceError as error:
            raise ConformanceError(f"with {name}: {error}") from None
    if len(refusals) == len(options):
        raise NotSupported("; ".join(refusals))


def sinks(setup: Setup) -> None:
    """A sink is one more score in a head's softmax, with no value behind it."""
    numbers = tuple(float(head - 1) for head in range(setup.num_heads))
    if not setup.backend.supports_sink():
        raise NotSupported("supports_sink says no")
    trial = Trial(with_options(setup, sinks=numbers))
    requests = [trial.request(setup.block_size + 3), trial.request(3)]
    trial.step_right([(requests[0], setup.block_size + 1), (requests[1], 1)])
    trial.step_right([(request, 1) for request in requests])


def fp8_cache(setup: Setup) -> None:
    """An fp8 cache keeps keys and values divided by the layer's scales: they are multiplied again when read."""
    trial = Trial(with_options(setup, kv_cache_dtype="fp8"))
    layer: Any = trial.layer
    # With these, most of what is stored is subnormal and rounds far from where it would without a scale: who leaves out
    # both the division and the multiplication is not right by a power of two.
    layer._k_scale.fill_(32.0)
    if not setup.backend.is_mla():
        layer._v_scale.fill_(8.0)
    requests = [trial.request(setup.block_size + 3), trial.request(5)]
    trial.step_right([(requests[0], setup.block_size + 1), (requests[1], 3)])
    trial.step_right([(request, 1) for request in requests])


def cuda_graph(setup: Setup) -> None:
    """A step captured once gives other batches of its shape right when it is replayed."""
    support = setup.backend.get_builder_cls().get_cudagraph_support()
    if support == AttentionCGSupport.NEVER:
        raise NotSupported("get_cudagraph_support says NEVER")
    if setup.device.type != "cuda":
        raise NotSupported("CUDA graphs need a GPU")
    size = setup.block_size
    # (tokens computed before, query tokens) of the captured batch, then of those that are replayed.
    batches = [
        [(size, 1), (3, 1), (0, 1)],
        [(1, 1), (2 * size + 1, 1), (size - 1, 1)],
        [(2 * size, 1), (size + 1, 1), (5, 1)],
    ]
    _replay(setup, batches)
    if support == AttentionCGSupport.ALWAYS:
        _replay(
            setup, [[(size, 3), (3, 4), (0, 5)], [(2, 1), (size + 1, 4), (1, 7)], [(0, 5), (size, 4), (9, 3)]]
        )


def _replay(setup: Setup, batches: list[list[tuple[int, int]]]) -> None:
    trial = Trial(setup, num_blocks=48)
    graph = None
    static: tuple[torch.Tensor, ...] = ()
    output = torch.empty(0)
    for index, lengths in enumerate(batches):
        batch = []
        for computed, count in lengths:
            request = trial.request(computed + count)
            if computed:
                trial.step_right([(request, computed)])
            batch.append((request, count))
        if graph is None:
            common, _ = trial.metadata(batch)
            attn_metadata = trial.builder.build_for_cudagraph_capture(common)
            static = tuple(tensor.clone() for tensor in trial.inputs(batch))
            # Once before, on a stream of its own, so that kernels are compiled.
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                trial.run(static, common, attn_metadata)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                output = trial.run(static, common, attn_metadata)
        # A replay reads the tensors that were there when the graph was captured.
        common, attn_metadata = trial.metadata(batch)
        for tensor, new in zip(static, trial.inputs(batch), strict=True):
            tensor.copy_(new)
        graph.replay()
        step = trial.advance(batch, output, common, attn_metadata)
        try:
            trial.expect_right(step)
        except ConformanceError as error:
            lens = [count for _, count in lengths]
            raise ConformanceError(
                f"batch {index} with query lengths {lens}, by a CUDA graph: {error}"
            ) from None
