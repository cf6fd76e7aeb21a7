"""Tabulate vLLM 0.22.1's choice of an attention backend by running vLLM's own code.

    python -m course.vllm.extract            writes course/data/vllm_0_22_1.json
    python -m course.vllm.extract --judge    reads deployments as JSON, answers what vLLM itself makes of them

`course.vllm.stubs` says which of vLLM's files are executed and what is assumed of the machine. For every
backend in a priority list every rule is asked for every value that it may depend on: the GPU, batch
invariance, head sizes and block sizes from 1 to 1024, every dtype. `validate_configuration`'s reasons are
taken from its answers, its places from its syntax tree. Nothing is known here but the names of the rules.
"""

import argparse
import itertools
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from course.vllm import source
from course.vllm.rules import TABLE, Deployment

CAPABILITIES = [(7, 0), (7, 2), (7, 5), (8, 0), (8, 6), (8, 7), (8, 9)]
CAPABILITIES += [(9, 0), (10, 0), (10, 1), (10, 3), (11, 0), (12, 0), (12, 1)]
DTYPES = ["float16", "bfloat16", "float32"]
LARGEST = {"head_size": 1024, "block_size": 1024, "num_heads": 256}
BASE = "vllm/v1/attention/backend.py"

# validate_configuration's rules, each with the argument that it judges.
RULES = {
    "supports_head_size": "head_size",
    "supports_dtype": "dtype",
    "supports_kv_cache_dtype": "kv_cache_dtype",
    "supports_block_size": "block_size",
    "supports_mm_prefix": "use_mm_prefix",
    "is_mla": "use_mla",
    "supports_sink": "has_sink",
    "is_sparse": "use_sparse",
    "supports_per_head_quant_scales": "use_per_head_quant_scales",
    "supports_compute_capability": "device_capability",
    "supports_attn_type": "attn_type",
    "supports_non_causal": "use_non_causal",
    "supports_batch_invariance": "use_batch_invariant",
    "supports_combination": "",
}
# Where a rule of the base class looks its answer up: shown beside the rule's own place.
LOOKED_UP = (
    "supported_dtypes",
    "supported_kv_cache_dtypes",
    "get_supported_head_sizes",
    "get_supported_kernel_block_sizes",
)
KINDS = ("use_mla", "has_sink", "use_sparse")


def extract() -> dict[str, Any]:
    """The table, from vLLM's source. Takes over the name `vllm`: call it in a process of its own."""
    import torch

    from course.vllm.stubs import Release

    release = Release()
    kv_cache_dtypes = [None, *_literal("vllm/config/cache.py", "CacheDType")]
    attn_types = [member.value for member in release.base.AttentionType]
    priorities = _priorities(release, kv_cache_dtypes)
    names = list(dict.fromkeys(name for case in priorities for name in case["backends"]))
    order = list(release.backends.__members__)
    backends = {
        name: _backend(release, release.backends[name], kv_cache_dtypes, attn_types, torch)
        for name in sorted(names, key=order.index)
    }
    return {
        "release": f"vllm {source.VERSION}",
        "wheel_sha256": source.WHEEL_SHA256,
        "covered": {
            "capability": [list(capability) for capability in CAPABILITIES],
            "dtype": DTYPES,
            "kv_cache_dtype": kv_cache_dtypes,
            "attn_type": attn_types,
            **LARGEST,
        },
        "rules": _rules(release, attn_types, torch),
        "priorities": priorities,
        "backends": backends,
    }


def judge(
    deployments: Iterable[Deployment], named: Iterable[str | None] = ()
) -> list[tuple[dict[str, list[str]], str]]:
    """(reasons by backend, choice) for each deployment, by vLLM's own code in a process of its own.

    named: for each deployment the backend that the user asks for by name, or None; by default nobody asks for one.
    """
    wishes = itertools.chain(named, itertools.repeat(None))
    asked = json.dumps([{**asdict(one), "named": wish} for one, wish in zip(deployments, wishes)])  # noqa: B905
    command = [sys.executable, "-m", "course.vllm.extract", "--judge"]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"vLLM's own selection did not run:\n{done.stderr}")
    return [(reasons, choice) for reasons, choice in json.loads(done.stdout)]


def render(extracted: dict[str, Any]) -> str:
    """The table's text, as it is committed: short lists stand on one line."""

    def write(value: Any, indent: str) -> str:
        flat = json.dumps(value, ensure_ascii=False)
        if len(indent) + len(flat) <= 160 or not isinstance(value, dict | list) or not value:
            return flat
        inner = indent + " "
        if isinstance(value, list):
            return "[\n" + ",\n".join(inner + write(v, inner) for v in value) + f"\n{indent}]"
        lines = (f"{inner}{json.dumps(key)}: {write(v, inner)}" for key, v in value.items())
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"

    return write(extracted, "") + "\n"


def _literal(path: str, name: str) -> list[str]:
    """The values of a `name = Literal[...]`; read, because pydantic's part of the file is a stub."""
    import ast

    for node in ast.parse(source.read(path)).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            assert isinstance(node.value, ast.Subscript)
            return [str(value) for value in ast.literal_eval(node.value.slice)]
    raise ValueError(f"name: {path} assigns no {name}")


def _ranges(allowed: Callable[[int], bool], last: int) -> list[list[int]]:
    """The numbers from 1 to last that are allowed, as [first, last, step] ranges."""
    left = [n for n in range(1, last + 1) if allowed(n)]
    ranges = []
    while left:
        step = left[1] - left[0] if len(left) > 1 else 1
        end = 1
        while end < len(left) and left[end] - left[end - 1] == step:
            end += 1
        if end == 2:  # two numbers are no progression
            end, step = 1, 1
        ranges.append([left[0], left[end - 1], step])
        left = left[end:]
    return ranges


def _priorities(release: Any, kv_cache_dtypes: list[str | None]) -> list[dict[str, Any]]:
    heads = [None, *range(1, LARGEST["num_heads"] + 1)]
    cases: dict[tuple[Any, ...], dict[str, Any]] = {}
    for use_mla, capability in itertools.product((False, True), CAPABILITIES):
        device = release.enter(capability)
        by_list: dict[tuple[tuple[str, ...], tuple[int | None, ...]], list[str | None]] = {}
        for dtype in kv_cache_dtypes:
            answers: dict[tuple[str, ...], list[int | None]] = {}
            for num_heads in heads:
                found = release.cuda._get_backend_priorities(use_mla, device, num_heads, dtype)
                answers.setdefault(tuple(b.name for b in found), []).append(num_heads)
            for backends, numbers in answers.items():
                by_list.setdefault((backends, tuple(numbers)), []).append(dtype)
        for (backends, which), dtypes in by_list.items():
            key = (use_mla, backends, which, tuple(dtypes))
            allowed = {"none": None in which, "ranges": _ranges(which.__contains__, LARGEST["num_heads"])}
            case = {"use_mla": use_mla, "capability": [], "kv_cache_dtype": dtypes, "num_heads": allowed}
            cases.setdefault(key, case | {"backends": list(backends)})["capability"].append(list(capability))
    return list(cases.values())


def _rules(release: Any, attn_types: list[str], torch: Any) -> list[dict[str, Any]]:
    """validate_configuration's reasons, in its order, from a backend that refuses one thing at a time."""
    base = release.base.AttentionBackend
    lines = source.read(BASE).splitlines()
    first, last = source.locate(BASE, "AttentionBackend.validate_configuration")
    nothing: dict[str, Any] = dict.fromkeys(RULES.values(), False) | {
        "head_size": 64,
        "dtype": torch.float16,
        "kv_cache_dtype": None,
        "block_size": None,
        "attn_type": attn_types[0],
        "device_capability": release.enter((9, 0)),
    }
    nothing.pop("")

    def reasons(refused: Iterable[str], **arguments: Any) -> list[str]:
        answers: dict[str, Any] = {rule: classmethod(lambda cls, *_: True) for rule in RULES}
        answers |= {rule: classmethod(lambda cls, *_: False) for rule in ("is_mla", "is_sparse")}
        answers["supports_combination"] = classmethod(lambda cls, *_: None)
        for rule in refused:
            answers[rule] = classmethod(lambda cls, *_: False)
        if "supports_combination" in refused:
            answers["supports_combination"] = classmethod(lambda cls, *_: "supports_combination's own reason")
        probe: Any = type("Probe", (base,), answers)
        found: list[str] = probe.validate_configuration(**nothing | arguments)
        return found

    every = reasons(RULES, **{argument: True for argument in RULES.values() if _is_flag(argument)})
    rules: list[dict[str, Any]] = []
    for rule, argument in RULES.items():
        asked = {argument: True} if _is_flag(argument) else {}
        (reason,) = reasons([rule], **asked)
        (line,) = (n for n in range(first, last + 1) if f"cls.{rule}(" in lines[n - 1])
        entry: dict[str, Any] = {"rule": rule, "field": argument or None, "reason": reason}
        entry["place"] = f"{BASE}:{line}"
        if rule == "supports_attn_type":
            entry["reason"] = reason.replace(attn_types[0], "{attn_type}")
            assert all(
                reasons([rule], attn_type=one) == [entry["reason"].format(attn_type=one)]
                for one in attn_types
            )
        if rule in ("is_mla", "is_sparse"):
            accepting: Any = type("Kind", (base,), {r: classmethod(lambda cls, *_: True) for r in RULES})
            accepting.supports_combination = classmethod(lambda cls, *_: None)
            other = {"use_mla", "use_sparse"} - {argument}
            (entry["reason_if_not_wanted"],) = accepting.validate_configuration(
                **nothing | dict.fromkeys(other, True)
            )
        assert reason in every, f"{rule}: a reason that validate_configuration does not always give"
        entry["order"] = every.index(reason)
        if rule == "supports_combination":
            entry["reason"] = None  # each backend gives its own
        rules.append(entry)
    rules.sort(key=lambda entry: int(entry.pop("order")))
    return rules


def _is_flag(argument: str) -> bool:
    return argument.startswith(("use_", "has_"))


def _backend(
    release: Any, member: Any, kv_cache_dtypes: list[str | None], attn_types: list[str], torch: Any
) -> dict[str, Any]:
    backend = member.get_class()
    dtypes = {name: getattr(torch, name) for name in DTYPES}
    chance = random.Random(member.name)

    def combination(device: Any, capability: tuple[int, int], invariant: bool) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for flags in itertools.product((False, True), repeat=len(KINDS)):
            kinds = dict(zip(KINDS, flags, strict=True))
            release.enter(capability, batch_invariant=invariant, sparse=kinds["use_sparse"])
            answers = {
                backend.supports_combination(
                    head_size=chance.randint(1, LARGEST["head_size"]),
                    dtype=chance.choice(list(dtypes.values())),
                    kv_cache_dtype=chance.choice(kv_cache_dtypes),
                    block_size=chance.choice([None, chance.randint(1, LARGEST["block_size"])]),
                    device_capability=device,
                    **kinds,
                )
                for _ in range(50)
            }
            assert len(answers) == 1, f"{member.name}: supports_combination depends on more than {KINDS}"
            found["+".join(name for name, flag in kinds.items() if flag)] = answers.pop()
        return found

    def facts(capability: tuple[int, int], invariant: bool) -> dict[str, Any]:
        device = release.enter(capability, batch_invariant=invariant)
        found: dict[str, Any] = {}
        found["supports_head_size"] = {
            "none": False,
            "ranges": _ranges(backend.supports_head_size, LARGEST["head_size"]),
        }
        found["supports_dtype"] = [name for name, dtype in dtypes.items() if backend.supports_dtype(dtype)]
        found["supports_kv_cache_dtype"] = [d for d in kv_cache_dtypes if backend.supports_kv_cache_dtype(d)]
        found["supports_block_size"] = {
            "none": bool(backend.supports_block_size(None)),
            "ranges": _ranges(backend.supports_block_size, LARGEST["block_size"]),
        }
        found["supports_compute_capability"] = bool(backend.supports_compute_capability(device))
        found["supports_attn_type"] = [one for one in attn_types if backend.supports_attn_type(one)]
        for rule in RULES:
            if rule not in found and rule != "supports_combination":
                found[rule] = bool(getattr(backend, rule)())
        found["supports_combination"] = combination(device, capability, invariant)
        return found

    by_machine = {
        (capability, invariant): facts(capability, invariant)
        for capability in CAPABILITIES
        for invariant in (False, True)
    }
    module = backend.__module__.replace(".", "/") + ".py"
    return {
        "class": f"{backend.__module__}.{backend.__qualname__}",
        "place": f"{module}:{source.locate(module, backend.__qualname__)[0]}",
        "places": {name: _place(backend, name) for name in (*RULES, *LOOKED_UP)},
        "facts": {rule: _cases({at: found[rule] for at, found in by_machine.items()}) for rule in RULES},
    }


def _place(backend: Any, name: str) -> str:
    """path:line of the class in the method resolution order that defines the name."""
    owner = next(cls for cls in backend.__mro__ if name in vars(cls))
    path = owner.__module__.replace(".", "/") + ".py"
    return "{}:{}".format(path, source.locate(path, f"{owner.__qualname__}.{name}")[0])


def _cases(by_machine: dict[tuple[tuple[int, int], bool], Any]) -> list[dict[str, Any]]:
    """One entry per value, saying only what the value depends on."""
    groups: list[tuple[Any, list[tuple[tuple[int, int], bool]]]] = []
    for machine, value in by_machine.items():
        for known, machines in groups:
            if known == value:
                machines.append(machine)
                break
        else:
            groups.append((value, [machine]))
    if len(groups) == 1:
        return [{"value": groups[0][0]}]
    cases = []
    for value, machines in groups:
        for invariants in ([False, True], [False], [True]):
            matching = [
                c for c in CAPABILITIES if [i for i in (False, True) if (c, i) in machines] == invariants
            ]
            if matching:
                case: dict[str, Any] = {"capability": [list(c) for c in matching]}
                if len(invariants) == 1:
                    case["use_batch_invariant"] = invariants
                cases.append(case | {"value": value})
    return cases


def _judge(asked: list[dict[str, Any]]) -> list[tuple[dict[str, list[str]], str]]:
    from course.vllm.stubs import Release

    release = Release()
    answers = []
    for fields in asked:
        capability = tuple(fields.pop("capability"))
        num_heads, named = fields.pop("num_heads"), fields.pop("named")
        reasons = release.explain(capability, fields, num_heads)
        answers.append((reasons, release.select(capability, fields, num_heads, named)))
    return answers


def main(arguments: list[str] | None = None) -> int:
    """The command; see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m course.vllm.extract", description=__doc__.split("\n")[0])
    parser.add_argument("--judge", action="store_true", help="answer the deployments on standard input")
    parser.add_argument("--stdout", action="store_true", help="print the table instead of writing it")
    options = parser.parse_args(arguments)
    try:
        if options.judge:
            json.dump(_judge(json.load(sys.stdin)), sys.stdout)
        elif options.stdout:
            print(render(extract()), end="")
        else:
            TABLE.write_text(render(extract()), encoding="utf-8")
            print(f"{TABLE.name} written")
    except source.SourceUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
