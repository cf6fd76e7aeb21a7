"""What vLLM's text says by its syntax tree: definitions, their lines, what they derive from and whom they call.

`course.vllm.index` keeps these facts in a committed file and answers from it. Nothing of vLLM is executed. A call is
resolved through imports, re-exports, local names, `self`, `super()` and registered torch operators; of several
branches that bind one name (CUDA, XPU, ROCm) the first counts, which is CUDA's. Of an object whose class the text does
not say (`layer.impl.forward(...)`) the name decides: see RECEIVERS. A method that is called is written
"module:Class.method" with the class that the object is at least of: a subclass may override it, or be the only one
that has it.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

from course.vllm import source

Function = ast.FunctionDef | ast.AsyncFunctionDef
OPERATORS = "torch.ops.vllm."

# What an attribute or a variable of this name holds, all over vLLM's attention code: an object (or the class itself)
# of this class or of one derived from it.
_BACKEND = "vllm.v1.attention.backend:AttentionBackend"
RECEIVERS = {
    "attn": "vllm.model_executor.layers.attention.attention:Attention",
    "attn_backend": _BACKEND,
    "backend": _BACKEND,
    "backend_class": _BACKEND,
    "builder": "vllm.v1.attention.backend:AttentionMetadataBuilder",
    "common_attn_metadata": "vllm.v1.attention.backend:CommonAttentionMetadata",
    "current_platform": "vllm.platforms.interface:Platform",
    "impl": "vllm.v1.attention.backend:AttentionImplBase",
    "mla_attn": "vllm.model_executor.layers.attention.mla_attention:MLAAttention",
    "selected_backend": "vllm.v1.attention.backends.registry:AttentionBackendEnum",
}


@dataclass
class Definition:
    """A class, function or name. names: a class's bases, a function's parameters."""

    qualname: str
    kind: str
    first: int
    last: int
    start: int  # its first decorator's line, or `first`
    node: ast.AST
    names: list[str] = field(default_factory=list)


@dataclass
class Module:
    """A file of vLLM: what it defines, and what each of its names is bound to, "module:name" of an import."""

    name: str
    path: str
    tree: ast.Module
    definitions: dict[str, Definition]
    imports: dict[str, str]


def module_name(path: str) -> str:
    """ "vllm/v1/attention/backends/__init__.py" -> "vllm.v1.attention.backends"."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@functools.cache
def paths_by_module() -> dict[str, str]:
    """The kept Python files of vLLM by the name of their module."""
    return {module_name(path): path for path in source.expected_files() if path.endswith(".py")}


@functools.cache
def module(name: str) -> Module:
    """A module of vLLM that is kept. Raises KeyError for another."""
    path = paths_by_module()[name]
    tree = ast.parse(source.read(path))
    return Module(name, path, tree, _definitions(tree), _imports(tree, name))


def _definitions(tree: ast.Module) -> dict[str, Definition]:
    found: dict[str, Definition] = {}

    def visit(node: ast.AST, prefix: str, inside: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                name = prefix + child.name
                start = min([child.lineno, *(each.lineno for each in child.decorator_list)])
                if isinstance(child, ast.ClassDef):
                    kind, names = "class", [ast.unparse(base) for base in child.bases]
                else:
                    kind, names = "method" if inside == "class" else "function", _parameters(child)
                made = Definition(name, kind, child.lineno, child.end_lineno or 0, start, child, names)
                if found.setdefault(name, made) is made:
                    visit(child, name + ".", "class" if isinstance(child, ast.ClassDef) else "function")
                continue
            if isinstance(child, ast.Assign | ast.AnnAssign) and inside != "function":
                for target in child.targets if isinstance(child, ast.Assign) else [child.target]:
                    if isinstance(target, ast.Name):
                        kind = "attribute" if inside == "class" else "variable"
                        name, line = prefix + target.id, child.lineno
                        made = Definition(name, kind, line, child.end_lineno or line, line, child)
                        found.setdefault(name, made)
            if not isinstance(child, ast.expr):
                visit(child, prefix, inside)

    visit(tree, "", "module")
    return found


def _parameters(function: Function) -> list[str]:
    given = function.args
    names = [each.arg for each in [*given.posonlyargs, *given.args]]
    names += [f"*{given.vararg.arg}"] if given.vararg else []
    names += [each.arg for each in given.kwonlyargs]
    return names + ([f"**{given.kwarg.arg}"] if given.kwarg else [])


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below one, but for the bodies of the functions and classes that it defines."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _own_nodes(child)


def _imports(scope: ast.AST, module_name: str) -> dict[str, str]:
    """Names that a scope imports: "module" for a module, "module:name" for what may be one or a name in it."""
    found: dict[str, str] = {}
    for node in _own_nodes(scope):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                found.setdefault(alias.asname or top, alias.name if alias.asname else top)
        elif isinstance(node, ast.ImportFrom):
            home = node.module or ""
            if node.level:
                is_package = paths_by_module().get(module_name, "").endswith("__init__.py")
                parts = module_name.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                home = ".".join([*parts, *([home] if home else [])])
            for alias in node.names:
                found.setdefault(alias.asname or alias.name, f"{home}:{alias.name}")
    return found


def follow(target: str) -> str:
    """Where an import leads: through re-exports to "module:qualname", or to a module, "module"."""
    home, _, name = target.partition(":")
    if not name:
        return target
    if f"{home}.{name}" in paths_by_module():
        return f"{home}.{name}"
    if home in paths_by_module():
        found = module(home)
        # Whichever stands first: an import in CUDA's branch comes before another platform's stub.
        if name in found.imports and not _defined_before(found, name):
            return follow(found.imports[name])
    return target


def _defined_before(found: Module, name: str) -> bool:
    if name not in found.definitions:
        return False
    imported = [
        node.lineno
        for node in _own_nodes(found.tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and any(name == (alias.asname or alias.name) for alias in node.names)
    ]
    return found.definitions[name].first < min(imported)


def definition(name: str) -> Definition | None:
    """The definition of "module:qualname", if the module is kept and has it."""
    home, _, qualname = name.partition(":")
    return module(home).definitions.get(qualname) if home in paths_by_module() else None


def bases(name: str) -> list[str]:
    """What a class derives from: "module:qualname" where that is of vLLM, else as written, subscripts left out."""
    home, _, _ = name.partition(":")
    found = definition(name)
    if found is None or not isinstance(found.node, ast.ClassDef):
        return []
    written = []
    for base in found.node.bases:
        node = base.value if isinstance(base, ast.Subscript) else base
        reached = _Scope(home, found.qualname).reach(node)
        of_vllm = reached is not None and reached.startswith("vllm.") and ":" in reached
        written.append(reached if reached and of_vllm else ast.unparse(node))
    return written


def member(name: str, attribute: str) -> str | None:
    """The member of a class "module:qualname", its own or the nearest inherited one."""
    pending, seen = [name], set()
    while pending:
        one = pending.pop(0)
        if one in seen:
            continue
        seen.add(one)
        if definition(f"{one}.{attribute}"):
            return f"{one}.{attribute}"
        pending += [base for base in bases(one) if ":" in base]
    return None


@functools.cache
def operators() -> dict[str, str]:
    """The torch operators that the kept attention files register: name in torch.ops.vllm -> "module:function"."""
    found = {}
    for name in paths_by_module():
        if "attention" not in name:
            continue
        for node in ast.walk(module(name).tree):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "direct_register_custom_op"):
                continue
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            operator, function = given.get("op_name"), given.get("op_func")
            if isinstance(operator, ast.Constant) and isinstance(function, ast.Name):
                found[str(operator.value)] = f"{name}:{function.id}"
    return found


class _Scope:
    """Where a name in the text of one definition leads."""

    def __init__(self, module_name: str, qualname: str):
        self.module = module(module_name)
        self.outer: list[tuple[str, dict[str, str], set[str]]] = []  # innermost first
        self.owner = ""  # the class whose method this is, or is inside
        parts = qualname.split(".")
        for end in range(len(parts), 0, -1):
            name = ".".join(parts[:end])
            node = self.module.definitions[name].node
            if isinstance(node, ast.ClassDef):
                self.owner = self.owner or name
            elif isinstance(node, Function):
                stored = {
                    n.id for n in _own_nodes(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
                }
                local = stored | {each.lstrip("*") for each in _parameters(node)}
                self.outer.append((name, _imports(node, module_name), local))

    def reach(self, node: ast.expr) -> str | None:
        """ "module:qualname" or "module" that an expression of names and dots stands for, as far as the text says."""
        if isinstance(node, ast.Name):
            return self._name(node.id)
        if isinstance(node, ast.Attribute):
            if ast.unparse(node).startswith(OPERATORS):
                return operators().get(node.attr)
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls") and self.owner:
                return member(f"{self.module.name}:{self.owner}", node.attr)
            if isinstance(node.value, ast.Call) and ast.unparse(node.value) == "super()" and self.owner:
                above = bases(f"{self.module.name}:{self.owner}")
                return next((hit for base in above if (hit := member(base, node.attr))), None)
            reached = self.reach(node.value)
            if reached is None:
                return None
            if ":" not in reached:
                return follow(f"{reached}:{node.attr}")
            return member(reached, node.attr)
        return None

    def _name(self, name: str) -> str | None:
        for qualname, imports, local in self.outer:
            if f"{qualname}.{name}" in self.module.definitions:
                return f"{self.module.name}:{qualname}.{name}"
            if name in imports:
                return follow(imports[name])
            if name in local:
                return None
        if name in self.module.imports or name in self.module.definitions:
            return follow(f"{self.module.name}:{name}")
        return None


def calls(name: str) -> list[str]:
    """Whom a function calls, in the order of the text, each once; what is not of vLLM is left out."""
    home, _, qualname = name.partition(":")
    found = definition(name)
    if found is None or not isinstance(found.node, Function):
        return []
    scope = _Scope(home, qualname)
    callees: dict[str, None] = {}
    for statement in found.node.body:
        for node in _own_nodes(ast.Module([statement], [])):
            if isinstance(node, ast.Call) and (callee := _callee(scope, node.func)):
                callees[callee] = None
    return list(callees)


def _callee(scope: _Scope, node: ast.expr) -> str | None:
    if isinstance(node, ast.Subscript):  # kernel[grid](...)
        node = node.value
    reached = scope.reach(node)
    if reached is not None:
        return reached if reached.startswith("vllm.") and ":" in reached else None
    if not isinstance(node, ast.Attribute):
        return None
    if node.attr in RECEIVERS and isinstance(node.value, ast.Name) and node.value.id == "self":
        return f"{RECEIVERS[node.attr]}.forward"  # what torch.nn.Module.__call__ runs
    receiver = node.value
    name = receiver.attr if isinstance(receiver, ast.Attribute) else getattr(receiver, "id", None)
    if name not in RECEIVERS:
        return None
    known = scope.reach(receiver)
    if known is None or (":" in known and definition(known) is None):
        return f"{RECEIVERS[name]}.{node.attr}"
    return None
