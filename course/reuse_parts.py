"""The parts of a serving engine that question 12 asks about: which a new kind of attention has to bring, which serve it as they are.

reuse_parts.show()      the list
"""

from collections.abc import Mapping

from course.deployments import Table

# Group -> part -> what it is.
GROUPS: Mapping[str, Mapping[str, str]] = {
    "the engine's": {
        "block_pool": "who owns which block, and which are free",
        "scheduler": "which requests run in a step, who is preempted",
        "prefix_sharing": "finds blocks that hold the same beginning",
        "block_table": "which blocks each request has, in order",
        "slot_mapping": "where this step's tokens go",
    },
    "the layer's": {
        "rotation": "turns queries and keys by their position",
        "projections": "absorbs W_UK into the query, applies W_UV to the output",
        "forward_context": "takes metadata and slots around the model",
        "selector": "asks backends for their reasons, takes the one that is named",
    },
    "the backend's": {
        "description": "name, is_mla, dtypes",
        "cache_shape": "get_kv_cache_shape",
        "cache_write": "do_kv_cache_update",
        "metadata_builder": "build",
        "attention": "forward_mqa",
    },
    "what speed adds": {
        "prefill_kernel": "a way of its own for prompts, with keys and values of each head (forward_mha)",
        "split_kv_merge": "several programs for one sequence, and their merge",
        "cuda_graphs": "steps recorded once and replayed",
        "fp8_scales": "a cache of one byte a number, and its scale",
    },
}
VERDICTS = ("implement", "reuse", "not needed")


# In alphabetical order, which gives nothing away.
PARTS: Mapping[str, str] = dict(
    sorted((part, what) for parts in GROUPS.values() for part, what in parts.items())
)


def show() -> Table:
    """The parts as a table."""
    return Table("The parts of a serving engine", ["part", "what it is"], [[*row] for row in PARTS.items()])
