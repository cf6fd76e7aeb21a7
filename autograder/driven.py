"""A learner's backend for latents as the suite, the layer and the engine see it, wherever it lives.

The learner's three classes stay where they are: in this process, or in the judge's worker. What stands here in their place asks
them by plain data (`judge.drive`), so that the conformance suite, the model and the engine run on the trusted side, and so
do all comparisons. A cache is handed over for each call and comes back; nothing that the classes say of themselves is a verdict.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import torch

from autograder.failure import AnswerProblem, Problem
from autograder.judge import observe
from autograder.judge.drive import COMMON, SHARED
from autograder.judge.proxy import CallableProxy
from autograder.registry import Answer
from kernels.backends import (
    AttentionBackend,
    AttentionCGSupport,
    AttentionMetadataBuilder,
    AttentionSpec,
    CommonAttentionMetadata,
    MLAAttentionImpl,
)

PARTS = ("LatentBackend", "LatentImpl", "LatentMetadataBuilder")
# What an impl may look at of the layer that calls it.
_SIZES = ("num_heads", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "head_size")
_TENSORS = ("W_UK", "W_UV", "_k_scale")
# What a method of the backend's class may return, in words.
_ANSWERS: dict[str, tuple[type, str]] = {
    "get_name": (str, "a name"),
    "is_mla": (bool, "True or False"),
    "get_kv_cache_shape": (tuple, "a tuple of positive whole numbers"),
    "get_supported_head_sizes": (list, "a list of whole numbers"),
    "get_supported_kernel_block_sizes": (list, "a list of whole numbers or MultipleOf"),
    "supports_head_size": (bool, "True or False"),
    "supports_dtype": (bool, "True or False"),
    "supports_kv_cache_dtype": (bool, "True or False"),
    "supports_block_size": (bool, "True or False"),
    "validate_configuration": (list, "a list of reasons"),
}


def refuse(headline: str, detail: str = "") -> AnswerProblem:
    return AnswerProblem(Problem(headline, detail))


class Driven(AttentionBackend):
    """What stands for a learner's backend. Made anew for each case, so that nothing is left of the one before.

    outputs: what the impls have returned, in order.
    """

    drive: ClassVar[Any]
    outputs: ClassVar[list[torch.Tensor]]

    @classmethod
    def ask(cls, method: str, **arguments: Any) -> Any:
        kind, expected = _ANSWERS[method]
        said = cls.drive("ask", method, arguments)
        # Exactly these types: an object that is equal to everything is no answer.
        if type(said) is not kind:
            raise refuse(f"{method} must return {expected}, got a {type(said).__name__}")
        items = said if isinstance(said, tuple | list) else ()
        if any(type(item) not in (int, str) for item in items):
            raise refuse(f"{method} must return {expected}")
        return said

    @classmethod
    def get_name(cls) -> str:
        return str(cls.ask("get_name"))

    @classmethod
    def get_impl_cls(cls) -> type[MLAAttentionImpl]:
        return type("LatentImpl", (_Impl,), {"backend": cls})

    @classmethod
    def get_builder_cls(cls) -> type[AttentionMetadataBuilder]:
        return type("LatentMetadataBuilder", (_Builder,), {"backend": cls})

    @classmethod
    def get_kv_cache_shape(
        cls,
        num_blocks: int,
        block_size: int,
        num_kv_heads: int,
        head_size: int,
        cache_dtype_str: str = "auto",
    ) -> tuple[int, ...]:
        shape: tuple[int, ...] = cls.ask(
            "get_kv_cache_shape",
            num_blocks=num_blocks,
            block_size=block_size,
            num_kv_heads=num_kv_heads,
            head_size=head_size,
            cache_dtype_str=cache_dtype_str,
        )
        # Checked here, for the trusted side makes a tensor of it.
        if not all(type(size) is int and 0 < size < 2**31 for size in shape) or len(shape) > 8:
            raise refuse(
                "get_kv_cache_shape must return a tuple of positive whole numbers", f"It returned {shape}"
            )
        if torch.Size(shape).numel() > num_blocks * 2**18:
            raise refuse(
                "get_kv_cache_shape asks for far more room than the tokens bring", f"It returned {shape}"
            )
        return shape

    @classmethod
    def get_supported_head_sizes(cls) -> list[int]:
        return list(cls.ask("get_supported_head_sizes"))

    @classmethod
    def get_supported_kernel_block_sizes(cls) -> list[Any]:
        return list(cls.ask("get_supported_kernel_block_sizes"))

    @classmethod
    def supports_head_size(cls, head_size: int) -> bool:
        return bool(cls.ask("supports_head_size", head_size=head_size))

    @classmethod
    def supports_dtype(cls, dtype: torch.dtype) -> bool:
        return bool(cls.ask("supports_dtype", dtype=dtype))

    @classmethod
    def supports_block_size(cls, block_size: int | None) -> bool:
        return bool(cls.ask("supports_block_size", block_size=block_size))

    @classmethod
    def is_mla(cls) -> bool:
        return bool(cls.ask("is_mla"))

    @classmethod
    def validate_configuration(cls, *args: Any, **question: Any) -> list[str]:
        if question.get("device_capability") is not None:
            question["device_capability"] = tuple(question["device_capability"])
        return list(cls.ask("validate_configuration", **question))


class _Builder(AttentionMetadataBuilder):
    backend: ClassVar[type[Driven]]

    def __init__(self, kv_cache_spec: AttentionSpec, layer_names: list[str], device: torch.device) -> None:
        super().__init__(kv_cache_spec, layer_names, device)
        self.number = self.backend.drive("make_builder", dict(vars(kv_cache_spec)), layer_names, str(device))

    @classmethod
    def get_cudagraph_support(cls) -> AttentionCGSupport:
        said = cls.backend.drive("graphs")
        if type(said) is not str or said not in AttentionCGSupport.__members__:
            raise refuse("get_cudagraph_support must return a member of AttentionCGSupport")
        return AttentionCGSupport[said]

    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> Any:
        return self._build(common_prefix_len, common_attn_metadata, False)

    def build_for_cudagraph_capture(self, common_attn_metadata: CommonAttentionMetadata) -> Any:
        return self._build(0, common_attn_metadata, True)

    def _build(self, prefix: int, common: CommonAttentionMetadata, capture: bool) -> Any:
        """The metadata's number, the batch that it is for, and those of its attributes that the batch has too."""
        made = self.backend.drive("build", self.number, prefix, dict(vars(common)), capture)
        if type(made) is not dict or made.keys() != {"number", "none", "fields"}:
            raise refuse("your code sent something that is no answer to the judge")
        if made["none"]:
            return None
        fields = made["fields"] if type(made["fields"]) is dict else {}
        plain = {n: v for n, v in fields.items() if n in SHARED and type(v) in (int, list, torch.Tensor)}
        return SimpleNamespace(**plain, made=made["number"], batch=common)


class _Impl(MLAAttentionImpl):
    backend: ClassVar[type[Driven]]

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int,
        kv_lora_rank: int,
        kv_cache_dtype: str = "auto",
    ) -> None:
        names = ("num_heads", "head_size", "scale", "num_kv_heads", "kv_lora_rank", "kv_cache_dtype")
        values = (num_heads, head_size, scale, num_kv_heads, kv_lora_rank, kv_cache_dtype)
        self.kv_lora_rank = kv_lora_rank
        self.number = self.backend.drive("make_impl", dict(zip(names, values, strict=True)))

    def forward_mqa(
        self, q: torch.Tensor, kv_c_and_k_pe_cache: torch.Tensor, attn_metadata: Any, layer: torch.nn.Module
    ) -> torch.Tensor:
        facts = {name: getattr(layer, name) for name in (*_SIZES, *_TENSORS)}
        common = dict(vars(attn_metadata.batch))
        before = {name: common[name].clone() for name in COMMON}
        arguments = (self.number, q, kv_c_and_k_pe_cache, attn_metadata.made, common, facts)
        found = self.backend.drive("attend", *arguments)
        for name, tensor in before.items():
            if not torch.equal(tensor, common[name]):
                raise refuse(
                    f"forward_mqa changes the batch's {name}",
                    "It belongs to the engine, and the next layer reads it.",
                )
        expected = [*q.shape[:2], self.kv_lora_rank]
        if type(found) is not torch.Tensor:
            raise refuse(
                f"forward_mqa must return a tensor [num_tokens, num_heads, kv_lora_rank], got a {type(found).__name__}"
            )
        if list(found.shape) != expected:
            raise refuse(
                "forward_mqa must return [num_tokens, num_heads, kv_lora_rank], padding rows included",
                f"Expected shape {expected}, got {list(found.shape)}, with {attn_metadata.batch.num_actual_tokens} "
                "tokens in the batch",
            )
        if found.dtype != q.dtype:
            raise refuse(
                "forward_mqa must return the query's dtype", f"Expected {q.dtype}, got {found.dtype}"
            )
        # Rows of padding hold anything.
        self.backend.outputs.append(found[: attn_metadata.batch.num_actual_tokens].detach().clone())
        return found

    def do_kv_cache_update(
        self,
        kv_c_normed: torch.Tensor,
        k_pe: torch.Tensor,
        kv_cache: torch.Tensor,
        slot_mapping: torch.Tensor,
        kv_cache_dtype: str,
        k_scale: torch.Tensor,
    ) -> None:
        rows = (kv_c_normed, k_pe, kv_cache, slot_mapping, kv_cache_dtype, k_scale)
        self.backend.drive("update", self.number, *rows)


def driven(answer: Answer) -> type[Driven]:
    """What stands for the answer's three classes. Raises AnswerProblem for what is no backend, or not the learner's own."""
    backend, impl, builder = (answer[name] for name in PARTS)
    make = backend._driver if isinstance(backend, CallableProxy) else _here(backend)
    drive = make(impl, builder)
    if not callable(drive):
        raise refuse("your code sent something that is no answer to the judge")
    objection = drive("objection")
    if objection:
        raise refuse(str(objection)[:200])
    return type("LatentBackend", (Driven,), {"drive": drive, "outputs": []})


def _here(backend: Any) -> Any:
    return lambda impl, builder: observe.driver(backend, impl, builder)


def places(backend: type[Driven]) -> dict[str, str]:
    """Where each method of the answer stands: "LatentImpl.forward_mqa" -> module, "" where nobody defines it."""
    return {str(name): str(module) for name, module in dict(backend.drive("places")).items()}


def reached(backend: type[Driven]) -> list[str]:
    """Functions of `kernels` that the answer's methods reached, "module:qualname"; see `Driver._watch`."""
    said = backend.drive("reached")
    return [name for name in said if type(name) is str] if type(said) is list else []
