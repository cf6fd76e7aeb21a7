"""Our own contenders: each rung of the ladder, and the public functions, which choose among the rungs."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch

from bench.contender import Contender, Unsupported, refuse
from bench.inputs import Inputs


@dataclass(frozen=True)
class Rung:
    """A function of ours. takes: "decode" for the arguments of `paged_decode`, "batch" for those of `paged_attention`,
    "latent" for those of `latent_decode`. keywords: what it is told besides."""

    module: str
    function: str
    takes: str
    keywords: Mapping[str, Any] = field(default_factory=dict)
    hopper_only: bool = False

    def load(self) -> Callable[..., Any]:
        try:
            return getattr(import_module(self.module), self.function)
        except (ImportError, AttributeError) as error:
            raise Unsupported(f"there is no {self.module}.{self.function} here: {error}") from error


def prepare(inputs: Inputs, rung: Rung) -> Callable[[], torch.Tensor]:
    case = inputs.case
    refuse(rung.takes == "decode" and case.kind != "decode", "decode only")
    refuse((rung.takes == "latent") != (case.kind == "latent"), "latent attention is a function of its own")
    refuse(rung.hopper_only and not _is_hopper(inputs.device), "for GPUs of the Hopper generation")
    function = rung.load()
    keywords: dict[str, Any] = {"out": inputs.empty_output(), **rung.keywords}
    if case.sliding_window is not None:
        keywords["sliding_window"] = case.sliding_window
    if case.kv_dtype != "bfloat16":
        keywords |= {"k_scale": inputs.k_scale, "v_scale": inputs.v_scale}
    if case.latent_size is not None:
        keywords["kv_lora_rank"] = case.latent_size
        cache = [inputs.key_cache[:, :, 0]]
    else:
        cache = [inputs.key_cache, inputs.value_cache]
    missing = keywords.keys() - inspect.signature(function).parameters.keys()
    refuse(bool(missing), f"no keyword {' or '.join(sorted(missing))}")

    arguments = [inputs.query, *cache, inputs.block_table, inputs.seq_lens]
    if rung.takes == "batch":
        arguments.append(inputs.query_start_loc)
    call = functools.partial(function, *arguments, inputs.scale, **keywords)
    if rung.keywords.get("tier") == "hopper":
        try:
            call()
        except ValueError as error:  # it alone knows whom that tier serves
            raise Unsupported(str(error)) from error
    return call


def _is_hopper(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] == 9


def _rung(name: str, function: str, takes: str, note: str = "", **more: Any) -> Contender:
    """function: its module and its name, with a dot between."""
    module, _, attribute = function.rpartition(".")
    rung = Rung(module, attribute, takes, **more)
    return Contender(name, functools.partial(prepare, rung=rung), ours=True, note=note)


INVARIANT = {"batch_invariant": True}

LADDER = (
    _rung("paged_decode", "kernels.paged_decode", "decode"),
    _rung("paged_attention", "kernels.paged_attention", "batch", "in the tier that kernels.explain names"),
    _rung("latent_decode", "kernels.latent_decode", "latent"),
    _rung("decode 1: one head", "kernels.single_query.single_query_decode", "decode"),
    _rung("decode 2: GQA packed", "kernels.gqa_decode.gqa_decode", "decode"),
    _rung("decode 3: splits, Triton tier", "kernels.paged_decode", "decode", keywords={"tier": "triton"}),
    _rung(
        "decode 4: Hopper tier",
        "kernels.paged_decode",
        "decode",
        keywords={"tier": "hopper"},
        hopper_only=True,
    ),
    _rung("prefill, Triton tier", "kernels.prefill.paged_prefill", "batch"),
    _rung("prefill, Hopper tier", "kernels.hopper_prefill.paged_prefill_hopper", "batch", hopper_only=True),
    _rung("latent, Triton tier", "kernels.latent_decode", "latent", keywords={"tier": "triton"}),
    _rung(
        "latent, Hopper tier",
        "kernels.latent_decode",
        "latent",
        keywords={"tier": "hopper"},
        hopper_only=True,
    ),
    _rung("paged_decode, batch-invariant", "kernels.paged_decode", "decode", keywords=INVARIANT),
    _rung("paged_attention, batch-invariant", "kernels.paged_attention", "batch", keywords=INVARIANT),
)
