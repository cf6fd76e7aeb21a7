"""Our own contenders: each rung of the ladder, and the public functions, which choose among the rungs."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from bench.contender import Contender, Unsupported, refuse
from bench.inputs import Inputs


@dataclass(frozen=True)
class Rung:
    """A function of ours. takes: "decode" for the arguments of `paged_decode`, "batch" for those of `paged_attention`,
    "latent" for those of `latent_decode`."""

    module: str
    function: str
    takes: str

    def load(self) -> Callable[..., Any]:
        try:
            return getattr(import_module(self.module), self.function)
        except (ImportError, AttributeError) as error:
            raise Unsupported(f"there is no {self.module}.{self.function} here: {error}") from error


def prepare(inputs: Inputs, rung: Rung) -> Callable[[], torch.Tensor]:
    case = inputs.case
    refuse(rung.takes == "decode" and case.kind != "decode", "decode only")
    refuse((rung.takes == "latent") != (case.kind == "latent"), "latent attention is a function of its own")
    function = rung.load()
    out = inputs.empty_output()
    keywords: dict[str, Any] = {"out": out}
    if case.sliding_window is not None:
        keywords["sliding_window"] = case.sliding_window
    if case.kv_dtype != "bfloat16":
        keywords |= {"k_scale": inputs.k_scale, "v_scale": inputs.v_scale}
    missing = keywords.keys() - inspect.signature(function).parameters.keys()
    refuse(bool(missing), f"no keyword {' or '.join(sorted(missing))}")

    if rung.takes == "latent":
        arguments = [inputs.query, inputs.key_cache, inputs.block_table, inputs.seq_lens]
    else:
        cache = (inputs.key_cache, inputs.value_cache)
        arguments = [inputs.query, *cache, inputs.block_table, inputs.seq_lens]
    if rung.takes == "batch":
        arguments.append(inputs.query_start_loc)
    return functools.partial(function, *arguments, inputs.scale, **keywords)


def _rung(name: str, module: str, function: str, takes: str, note: str = "") -> Contender:
    rung = Rung(module, function, takes)
    return Contender(name, functools.partial(prepare, rung=rung), ours=True, note=note)


LADDER = (
    _rung("paged_decode", "kernels", "paged_decode", "decode", "what kernels.explain chooses"),
    _rung("paged_attention", "kernels", "paged_attention", "batch", "what kernels.explain chooses"),
    _rung("latent_decode", "kernels", "latent_decode", "latent"),
    _rung("rung 1: one query, one head", "kernels.single_query", "single_query_decode", "decode"),
    _rung("rung 2: GQA packed", "kernels.gqa_decode", "gqa_decode", "decode"),
)
