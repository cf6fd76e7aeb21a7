"""The committed index of vLLM 0.22.1's attention code, made from the released source.

    python -m course.vllm.index_build    writes course/data/vllm_0_22_1_index.json, from which course.vllm.index answers

The index holds facts and no text of vLLM. A definition is a row: its kind, first line, last line, first line with
decorators, a class's bases or a function's parameters (one string, separated by commas), its calls. Empty ends of a
row are left out, and a name that begins with a colon is of the same file. "imports" are the indexed functions that a
file imports, of a package also its classes: people name them by either module.
"""

import json
import sys
from pathlib import Path
from typing import Any

from course.vllm import facts, source

INDEX = Path(__file__).parents[1] / "data" / "vllm_0_22_1_index.json"
INDEXED_FOLDERS = ("vllm/v1/attention/", "vllm/model_executor/layers/attention/")
INDEXED_FILES = (
    "vllm/_custom_ops.py",
    "vllm/config/attention.py",
    "vllm/forward_context.py",
    "vllm/model_executor/layers/attention_layer_base.py",
    "vllm/model_executor/models/llama.py",
    "vllm/platforms/cuda.py",
    "vllm/platforms/interface.py",
    "vllm/v1/kv_cache_interface.py",
    "vllm/vllm_flash_attn/__init__.py",
    "vllm/vllm_flash_attn/flash_attn_interface.py",
)


def build() -> dict[str, Any]:
    """The facts, from the released source. Raises SourceUnavailable when it cannot be had."""
    paths = sorted(
        path
        for path in source.expected_files()
        if path in INDEXED_FILES or (path.endswith(".py") and path.startswith(INDEXED_FOLDERS))
    )
    modules = [facts.module(facts.module_name(path)) for path in paths]
    methods = {name.rpartition(".")[2] for one in modules for name in one.definitions if "." in name}
    indexed = {f"{one.name}:{qualname}" for one in modules for qualname in one.definitions}
    files = {one.path: _facts(one, methods, indexed) for one in modules}
    return {"release": f"vllm {source.VERSION}", "files": files}


def _facts(one: facts.Module, methods: set[str], indexed: set[str]) -> dict[str, Any]:
    said: dict[str, Any] = {
        "lines": len(source.read(one.path).splitlines()),
        "imports": {},
        "definitions": {},
    }
    for name in one.imports:
        reached = facts.follow(f"{one.name}:{name}")
        found = facts.definition(reached) if reached in indexed else None
        if found is not None and (found.kind == "function" or one.path.endswith("__init__.py")):
            said["imports"][name] = reached
    receivers = set(facts.RECEIVERS.values())
    for qualname, found in one.definitions.items():
        name = f"{one.name}:{qualname}"
        if facts.follow(name) != name:
            continue  # another platform's stand-in for an imported name
        names = facts.bases(name) if found.kind == "class" else found.names
        calls = []
        for callee in facts.calls(name):
            owner, _, method = callee.rpartition(".")
            # A name of RECEIVERS held something else where no indexed class has the method.
            if owner not in receivers or method in methods:
                calls.append(callee.removeprefix(one.name) if callee.startswith(f"{one.name}:") else callee)
        row = [found.kind, found.first, found.last, found.start, ", ".join(names), calls]
        while not row[-1]:
            row.pop()
        said["definitions"][qualname] = row
    return said


def render(index: dict[str, Any]) -> str:
    """The index as text, a definition on each line."""

    def flat(value: Any) -> str:
        return json.dumps(value, separators=(",", ":"))

    files = []
    for path, said in index["files"].items():
        rows = ",\n".join(f"{flat(name)}:{flat(row)}" for name, row in said["definitions"].items())
        start = {key: value for key, value in said.items() if key != "definitions"}
        files.append(f'{flat(path)}:{flat(start)[:-1]},"definitions":{{\n{rows}}}}}')
    return f'{{"release":{flat(index["release"])},"files":{{\n' + ",\n".join(files) + "}}\n"


def main() -> int:
    """`python -m course.vllm.index_build`."""
    try:
        text = render(build())
    except source.SourceUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    INDEX.write_text(text, encoding="utf-8")
    print(f"{INDEX.name}: {len(text)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
