"""Question 12: backends for latents with one mistake each, and right ones by another road."""

from dataclasses import replace

from autograder.class_collector import ClassCollector
from autograder.misconceptions import latent_solution
from autograder.misconceptions.latent_right import READ_ROWS, SHAPE, add_right_variants

latent = ClassCollector(latent_solution, ("LatentBackend", "LatentImpl", "LatentMetadataBuilder"))

IS_MLA = "    def is_mla(cls):\n        return True"
ROWS = "rows = kv_cache.flatten(0, 1)  # a view: [num_blocks * block_size, head_size]"
BUILDER = "class LatentMetadataBuilder(backends.AttentionMetadataBuilder):"

latent.edit(
    "name-of-another",
    'get_name says "TRITON_MLA", whose member of AttentionBackendEnum is our own class. A backend from outside is registered as '
    "CUSTOM, and vLLM finds the member by what get_name says.",
    ('return "CUSTOM"', 'return "TRITON_MLA"'),
)
latent.edit(
    "name-that-nobody-knows",
    "get_name says a name of its own. AttentionBackendEnum has no member of that name, so nobody can look the backend up; a backend "
    "from outside takes the place that is kept free for it, CUSTOM.",
    ('return "CUSTOM"', 'return "LATENT"'),
)
latent.edit(
    "says-yes-to-everything",
    "validate_configuration has no reason against anything: int8 models, unknown caches, models without latents. The selector believes "
    "it, and the error comes later, in a kernel. Inherit it, and let supported_dtypes, supported_kv_cache_dtypes and is_mla answer.",
    (
        IS_MLA,
        f"{IS_MLA}\n\n    @classmethod\n    def validate_configuration(cls, **question):\n        return []",
    ),
)
latent.edit(
    "no-mla",
    "is_mla is left as it is inherited, False. It decides which layer may use the backend: MLAAttention, which hands over latents, takes "
    "only those that say True.",
    (IS_MLA, "    def is_mla(cls):\n        return False"),
)
latent.edit(
    "planes-for-key-and-value",
    "the cache has two planes, one for keys and one for values, as an ordinary one has. A latent is key and value at once: half of "
    "this cache is never read, and half of the tokens fit.",
    (SHAPE, "return (2, num_blocks, block_size, head_size)"),
    (ROWS, "rows = kv_cache[0].flatten(0, 1)"),
    (READ_ROWS, "rows = kv_c_and_k_pe_cache[0].flatten(0, 1)"),
)
latent.edit(
    "value-stored-again",
    "a row holds the key and, behind it, the value once more. The value is the key's first kv_lora_rank numbers: it is there "
    "already.",
    (SHAPE, "return (num_blocks, block_size, 2 * head_size)"),
    (
        "rows[slot_mapping[written]] = row[written]",
        "rows[slot_mapping[written]] = torch.cat([row, row], dim=-1)[written]",
    ),
    ("key = rows[slots].float()", "key = rows[slots][:, : rows.shape[-1] // 2].float()"),
)
latent.edit(
    "a-row-for-each-head",
    "the cache has a row for each head, and they are all the same. All heads share the latent: that is what makes the cache small.",
    (SHAPE, "return (num_blocks, block_size, 16, head_size)"),
    (
        "rows[slot_mapping[written]] = row[written]",
        "rows[slot_mapping[written]] = row[written][:, None].expand(-1, 16, -1)",
    ),
    ("key = rows[slots].float()", "key = rows[slots, 0].float()"),
)
latent.edit(
    "position-first",
    "the row is written with the part for the position first, and read with the latent first. The first kv_lora_rank numbers of a row "
    "are the latent: queries are laid out so.",
    (
        "row = torch.cat([kv_c_normed[:num_tokens], k_pe[:num_tokens, 0]], dim=-1)",
        "row = torch.cat([k_pe[:num_tokens, 0], kv_c_normed[:num_tokens]], dim=-1)",
    ),
)
latent.edit(
    "minus-one-written",
    "rows with slot -1 are written too. For torch, index -1 is the last row: they land in the cache's last slot, whoever owns it.",
    ("rows[slot_mapping[written]] = row[written]", "rows[slot_mapping] = row"),
)
latent.edit(
    "minus-one-is-slot-zero",
    "slot -1 is made slot 0. That slot is somebody's: -1 means that the token is not written at all.",
    (
        "rows[slot_mapping[written]] = row[written]",
        "rows[slot_mapping.clamp(min=0).flip(0)] = row.flip(0)",
    ),
)
latent.edit(
    "cache-of-its-own",
    "rows are kept in a tensor of the impl's own and read from there. The engine moves, copies and shares blocks of the cache that it "
    "allocated, and knows of no other.",
    (
        "rows[slot_mapping[written]] = row[written]",
        "self.own = getattr(self, 'own', rows.clone())\n        self.own[slot_mapping[written]] = row[written]\n"
        "        rows[slot_mapping[written]] = row[written]",
    ),
    (READ_ROWS, "rows = self.own"),
)
latent.edit(
    "before-this-step",
    "this step's tokens are taken off seq_lens. They are in the cache already when forward_mqa is called, and a query sees its own "
    "token.",
    (
        "enumerate(common.seq_lens.tolist())",
        "enumerate((common.seq_lens - common.query_start_loc.diff()).clamp(min=0).tolist())",
    ),
)
latent.edit(
    "no-block-table",
    "the logical block is taken for the physical one: the block table is not looked at.",
    (
        "block = common.block_table_tensor[request, position // block_size].long()",
        "block = position // block_size",
    ),
)
latent.edit(
    "kept-from-the-last-step",
    "the metadata of an earlier step is handed out again when the batch has the same numbers of requests and tokens. Lengths and blocks "
    "have changed since: build makes it anew for each step.",
    (
        "        common = common_attn_metadata\n",
        "        common = common_attn_metadata\n"
        "        kept = self.__dict__.setdefault('kept', {})\n"
        "        alike = (common.num_reqs, common.num_actual_tokens)\n"
        "        if alike in kept:\n            return kept[alike]\n",
    ),
    (
        "return LatentMetadata(common.num_actual_tokens, query_start_loc, slots)",
        "kept[alike] = LatentMetadata(common.num_actual_tokens, query_start_loc, slots)\n        return kept[alike]",
    ),
)
latent.edit(
    "graphs-always",
    "CUDA graphs are claimed, ALWAYS, and build makes new tensors and lists in each step. A graph replays with the addresses of the step in "
    "which it was captured, where the old numbers still stand. Say NEVER, which is what is inherited, or pass on the batch's own tensors.",
    (BUILDER, f"{BUILDER}\n    _cudagraph_support = backends.AttentionCGSupport.ALWAYS\n"),
)
latent.edit(
    "fp8-claimed",
    "supported_kv_cache_dtypes names fp8, and nothing divides by the layer's scale on writing or multiplies with it on reading. Claim what "
    "the impl does.",
    ('supported_kv_cache_dtypes = ["auto"]', 'supported_kv_cache_dtypes = ["auto", "fp8"]'),
    (
        "rows[slot_mapping[written]] = row[written]",
        "rows[slot_mapping[written]] = row[written].to(rows.dtype)",
    ),
)
latent.edit(
    "scale-of-the-row",
    "scores are multiplied with head_size ** -0.5, where head_size is the row's. The scale belongs to the heads as they were before "
    "absorption (qk_nope_head_dim + qk_rope_head_dim); the layer hands it over as `scale`.",
    ("self.scale = scale", "self.scale = head_size**-0.5"),
)
latent.edit(
    "scale-of-the-latent",
    "scores are multiplied with kv_lora_rank ** -0.5. The scale belongs to the heads as they were before absorption; the layer hands it "
    "over as `scale`.",
    ("self.scale = scale", "self.scale = kv_lora_rank**-0.5"),
)
latent.edit(
    "scale-left-out",
    "scores are not multiplied with the scale. The absorbed query does not have it in it.",
    (", key) * self.scale", ", key)"),
)
latent.edit(
    "position-left-out",
    "scores are taken over the latent alone. The rest of the row is the part for the position: without it the model does not know what came "
    "before what.",
    (
        'scores = torch.einsum("qhd,td->hqt", q[start:end].float(), key)',
        'scores = torch.einsum("qhd,td->hqt", q[start:end, :, : self.kv_lora_rank].float(), value)',
    ),
)
latent.edit(
    "value-is-the-whole-row",
    "the whole row is taken for the value, the part for the position included. Only its first kv_lora_rank numbers are.",
    ("value = key[:, : self.kv_lora_rank]", "value = key"),
    ("self.num_heads, self.kv_lora_rank)", "self.num_heads, q.shape[-1])"),
)
latent.edit(
    "value-from-the-rows-end",
    "the last kv_lora_rank numbers of the row are taken for the value, the part for the position among them. It is the first "
    "kv_lora_rank.",
    ("value = key[:, : self.kv_lora_rank]", "value = key[:, -self.kv_lora_rank :]"),
)
latent.edit(
    "up-projection-twice",
    "the output is multiplied with W_UV in forward_mqa. The layer does that with whatever comes back, so the values are projected twice.",
    (
        '            output[start:end] = torch.einsum("hqt,tr->qhr", scores.softmax(dim=-1), value).to(q.dtype)',
        '            latent = torch.einsum("hqt,tr->qhr", scores.softmax(dim=-1), value).to(q.dtype)\n'
        '            output[start:end] = torch.einsum("qhr,hdr->qhd", latent, layer.W_UV)',
    ),
)
latent.edit(
    "no-mask",
    "every query token sees its request's whole sequence, the tokens after it included. In a decode nothing comes after it; in a "
    "prompt or a chunk it does.",
    ('scores.masked_fill(position[None, :] > sits_at[:, None], float("-inf"))', "scores"),
)
latent.edit(
    "mask-from-the-start",
    "query i is placed at position i. That holds for a whole prompt; in a chunk and in a decode, query i of n sits at "
    "seq_len - n + i.",
    ("position[len(slots) - (end - start) :]", "position[: end - start]"),
)
latent.edit(
    "last-token-only",
    "only a request's last query token is attended for. A prompt's other tokens need their outputs as well: the next layer makes "
    "keys of them.",
    (
        'output[start:end] = torch.einsum("hqt,tr->qhr", scores.softmax(dim=-1), value).to(q.dtype)',
        'output[end - 1] = torch.einsum("hqt,tr->qhr", scores.softmax(dim=-1), value)[-1].to(q.dtype)',
    ),
)
latent.edit(
    "output-without-padding",
    "the output has a row for each actual token and none for the rows of padding. The layer's tensors may have more rows than the batch "
    "has tokens, and the output has as many as the query.",
    ("q.new_zeros(len(q),", "q.new_zeros(attn_metadata.num_actual_tokens,"),
)
latent.edit(
    "output-left-as-it-was",
    "the output is memory that nobody cleared, and rows of a request without tokens are never written. They must be zeros.",
    ("q.new_zeros(len(q),", "q.new_empty(len(q),"),
)
latent.edit(
    "triton-mla-by-inheritance",
    "LatentImpl is TritonMLAImpl under another name. The exercise is forward_mqa; the kernel latent_decode may be called from it.",
    (
        latent.whole("LatentImpl"),
        "from kernels.backends.triton_mla import TritonMLAImpl\n\n\nclass LatentImpl(TritonMLAImpl):\n    pass",
    ),
)

add_right_variants(latent)

# What q12_reuse says of the solution, and of the classes of which something else is to be said.
TRUTH = {
    **dict.fromkeys(("block_pool", "scheduler", "prefix_sharing", "block_table", "slot_mapping"), "reuse"),
    **dict.fromkeys(("rotation", "projections", "forward_context", "selector"), "reuse"),
    **dict.fromkeys(
        ("description", "cache_shape", "cache_write", "metadata_builder", "attention"), "implement"
    ),
    **dict.fromkeys(("prefill_kernel", "split_kv_merge", "cuda_graphs", "fp8_scales"), "not needed"),
}
OTHERWISE = {
    "graphs-always": {"cuda_graphs": "implement"},
    "fp8-claimed": {"fp8_scales": "implement"},
    "triton-mla-by-inheritance": {"attention": "reuse", "cache_write": "reuse"},
    "the-builder-reused": {"metadata_builder": "reuse", "attention": "reuse", "cuda_graphs": "reuse"},
}


def _with_truth(given):
    """An answer to both parts of the question: the second check drops what it does not use."""
    return tuple(
        replace(one, parts={**one.parts, "q12_reuse": {**TRUTH, **OTHERWISE[one.name]}})
        if one.name in OTHERWISE
        else one
        for one in given
    )


SOLUTION = latent.solution
MISCONCEPTIONS = _with_truth(latent.misconceptions)
RIGHT_VARIANTS = _with_truth(latent.right_variants)
HINTS = (
    "One class at a time, and check after each: the cases come in the order in which a backend grows. LatentBackend only answers: the name "
    'under which it is registered ("CUSTOM"), True for latents, and a shape with head_size numbers a token. What you do not override is '
    "inherited, and honest.",
    "The builder turns block table and lengths into the slots of each request's tokens, as build_metadata did in lesson 1: position p "
    "lies in slot block_table[request, p // block_size] * block_size + p % block_size. In the impl, cache.flatten(0, 1) is a view "
    "with one row a slot: write rows[slot_mapping], but only where slot_mapping >= 0, and read rows[slots].",
    "forward_mqa, for each request: key = rows[slots].float(); value = key[:, :self.kv_lora_rank]; scores = torch.einsum('qhd,td->hqt', "
    "q[start:end].float(), key) * self.scale; mask what lies after position seq_len - n + i with -inf; output[start:end] = "
    "torch.einsum('hqt,tr->qhr', scores.softmax(-1), value). Begin with output = q.new_zeros(len(q), num_heads, kv_lora_rank), and skip "
    "requests without tokens.",
)
