"""Run vLLM 0.22.1's own backend selection, from its source, without vLLM, a GPU or CUDA.

The modules in `EXECUTED` are vLLM's files, executed unchanged: the backends, their base classes, the
selector's configuration, `_get_backend_priorities` and `CudaPlatformBase.get_valid_backends`. Everything
else that they import is a stub: an object that can be called, subclassed and decorated with, but never
asked for a truth value or compared, so that no rule can depend on one unnoticed. torch and numpy are real;
tensors that vLLM puts on the GPU while it is imported go to torch's meta device.

What is assumed of the machine, and from where:
- Of vLLM's own modules exactly those exist that the wheel ships (its RECORD): FlashAttention 2, 3 and 4 and
  FlashMLA.
- Of other packages exactly those exist that the release requires unconditionally (Requires-Dist in its
  METADATA): flashinfer with its kernels in flashinfer-cubin (so that the TRTLLM kernels need no download)
  and tokenspeed-mla.
- The user set nothing but what a `Deployment` says: every environment variable has its default (batch
  invariance is a field of the deployment), `AttentionConfig` too (`check_defaults` holds the ones used here
  against the source).
- The model is not a hybrid with Mamba layers, and an MLA model has the head sizes of DeepSeek-V3 (nope 128,
  rope 64, v 128) and, if the deployment is sparse, an `index_topk`.
- No MLA or Mamba backend was replaced by a plug-in.

Import this module only in a process of its own (`python -m course.vllm.extract`): it takes over the name
`vllm`.
"""

import ast
import csv
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from course.vllm import source

EXECUTED = frozenset(
    {
        "vllm.config.cache",
        "vllm.envs",
        "vllm.model_executor.layers.attention.mla_attention",
        "vllm.platforms.cuda",
        "vllm.platforms.interface",
        "vllm.utils.flashinfer",
        "vllm.utils.import_utils",
        "vllm.utils.torch_utils",
        "vllm.v1.attention.backend",
        "vllm.v1.attention.backends.fa_utils",
        "vllm.v1.attention.backends.flash_attn",
        "vllm.v1.attention.backends.flashinfer",
        "vllm.v1.attention.backends.flex_attention",
        "vllm.v1.attention.backends.mla.cutlass_mla",
        "vllm.v1.attention.backends.mla.flashattn_mla",
        "vllm.v1.attention.backends.mla.flashinfer_mla",
        "vllm.v1.attention.backends.mla.flashinfer_mla_sparse",
        "vllm.v1.attention.backends.mla.flashmla",
        "vllm.v1.attention.backends.mla.flashmla_sparse",
        "vllm.v1.attention.backends.mla.tokenspeed_mla",
        "vllm.v1.attention.backends.mla.triton_mla",
        "vllm.v1.attention.backends.registry",
        "vllm.v1.attention.backends.triton_attn",
        "vllm.v1.attention.backends.turboquant_attn",
        "vllm.v1.attention.ops.flashmla",
        "vllm.v1.attention.selector",
        "vllm.vllm_flash_attn.flash_attn_interface",
    }
)
# The name that a distribution is imported by, where it is not its own name with underscores.
IMPORT_NAMES = {"flashinfer_python": "flashinfer"}
REAL_PACKAGES = frozenset({"torch", "numpy", "typing_extensions", "packaging"})


class Stub:
    """Stands for an object of a module that is not executed; it has no value to decide anything by."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __repr__(self) -> str:
        return f"<stub {self.__name__}>"

    def __getattr__(self, name: str) -> "Stub":
        if name.startswith("__"):
            raise AttributeError(name)
        return Stub(f"{self.__name__}.{name}")

    def __call__(self, *_: Any, **__: Any) -> "Stub":
        return Stub(f"{self.__name__}()")

    def __getitem__(self, _: Any) -> "Stub":
        return Stub(f"{self.__name__}[]")

    def __or__(self, _: Any) -> "Stub":
        return self

    __ror__ = __or__

    def __mro_entries__(self, _: Any) -> tuple[type, ...]:
        return ()

    def _refuse(self, *_: Any) -> Any:
        raise TypeError(f"a rule of vLLM depends on {self.__name__}, which is a stub here")

    __bool__ = __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __iter__ = __len__ = __int__ = __index__ = _refuse
    __hash__ = object.__hash__


class StubModule(ModuleType):
    """A module that is not executed: every name of it is a stub."""

    def __getattr__(self, name: str) -> Stub:
        if name.startswith("__"):
            raise AttributeError(name)
        return Stub(f"{self.__name__}.{name}")


class _Loader(importlib.abc.Loader):
    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return StubModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the executed modules in the fetched source, and stubs for what else is shipped or required."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shipped = set(_shipped_modules(root))
        self.required = _required_packages(root)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        top = name.partition(".")[0]
        if top == "vllm":
            if name in EXECUTED:
                file = self.root / (name.replace(".", "/") + ".py")
                return importlib.util.spec_from_file_location(name, file)
            if name not in self.shipped:
                return None
        elif top not in self.required or top in REAL_PACKAGES:
            return None
        return importlib.machinery.ModuleSpec(name, _Loader(), is_package=True)


def _shipped_modules(root: Path) -> Iterator[str]:
    """Every module and package of the wheel, by its RECORD: Python files and compiled extensions."""
    record = root / f"vllm-{source.VERSION}.dist-info" / "RECORD"
    with record.open(encoding="utf-8", newline="") as lines:
        for path, *_ in csv.reader(lines):
            parts = path.split("/")
            if parts[0] != "vllm" or not path.endswith((".py", ".so")):
                continue
            parts[-1] = parts[-1].partition(".")[0]
            if parts[-1] == "__init__":
                parts.pop()
            for end in range(1, len(parts) + 1):
                yield ".".join(parts[:end])


def _required_packages(root: Path) -> frozenset[str]:
    """The import names of what the wheel's METADATA requires without a condition."""
    metadata = (root / f"vllm-{source.VERSION}.dist-info" / "METADATA").read_text(encoding="utf-8")
    names = re.findall(r"^Requires-Dist: ([A-Za-z0-9._-]+)(?:\[[^]]*\])?[^;\n]*$", metadata, re.MULTILINE)
    modules = (re.sub(r"[-.]", "_", name.lower()) for name in names)
    return frozenset(IMPORT_NAMES.get(name, name) for name in modules)


def _put_gpu_tensors_on_meta() -> None:
    """Workspaces that vLLM allocates on the GPU while it is imported take no memory here."""
    for name in ("zeros", "empty"):
        real = getattr(torch, name)

        @functools.wraps(real)
        def wrapped(*args: Any, real: Any = real, **kwargs: Any) -> torch.Tensor:
            if str(kwargs.get("device", "")).startswith("cuda"):
                kwargs["device"] = "meta"
            result: torch.Tensor = real(*args, **kwargs)
            return result

        setattr(torch, name, wrapped)
    torch.compile = lambda function=None, **_: function or (lambda f: f)  # type: ignore[assignment]


def check_defaults() -> None:
    """Hold the defaults that `Release` assumes against `AttentionConfig`'s own text.

    Raises AssertionError when one of them is not None in the release.
    """
    tree = ast.parse(source.read("vllm/config/attention.py"))
    (config,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "AttentionConfig")
    fields = {ast.unparse(n.target): n.value for n in config.body if isinstance(n, ast.AnnAssign)}
    for name in ("backend", "flash_attn_version", "use_trtllm_attention"):
        value = fields[name]
        is_none = isinstance(value, ast.Constant) and value.value is None
        assert is_none, f"AttentionConfig.{name} is not None"


class Release:
    """vLLM 0.22.1's selection on a GPU of any compute capability. One per process."""

    def __init__(self) -> None:
        root = source.verify()
        check_defaults()
        for variable in [name for name in os.environ if name.startswith("VLLM_")]:
            del os.environ[variable]
        _put_gpu_tensors_on_meta()
        sys.meta_path.insert(0, _Finder(root))
        self._model = SimpleNamespace(qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128)
        vllm_config = SimpleNamespace(
            model_config=SimpleNamespace(is_hybrid=False, hf_text_config=self._model),
            cache_config=SimpleNamespace(mamba_ssm_cache_dtype="auto", mamba_cache_dtype="auto"),
            attention_config=SimpleNamespace(
                backend=None, flash_attn_version=None, use_trtllm_attention=None
            ),
        )
        config_module: Any = importlib.import_module("vllm.config")
        config_module.get_current_vllm_config = lambda: vllm_config
        config_module.get_current_vllm_config_or_none = lambda: vllm_config
        pynvml: Any = importlib.import_module("vllm.third_party.pynvml")
        pynvml.nvmlDeviceGetCount = lambda: 1  # cuda.py looks for mixed GPUs while it is imported
        torch_utils: Any = importlib.import_module("vllm.utils.torch_utils")
        torch_utils.direct_register_custom_op = lambda *_, **__: (
            None
        )  # kernels are stubs: nothing to register
        interface = importlib.import_module("vllm.platforms.interface")
        self.capability_type = interface.DeviceCapability
        capability = self._capability = [self.capability_type(9, 0)]
        self.cuda = importlib.import_module("vllm.platforms.cuda")

        class Device(self.cuda.CudaPlatformBase):  # type: ignore[name-defined]
            @classmethod
            def get_device_capability(cls, device_id: int = 0) -> Any:
                return capability[0]

        self.platform = Device()
        platforms: Any = importlib.import_module("vllm.platforms")
        platforms.current_platform = self.platform
        self.backends = importlib.import_module("vllm.v1.attention.backends.registry").AttentionBackendEnum
        self.config_type = importlib.import_module("vllm.v1.attention.selector").AttentionSelectorConfig
        self.base = importlib.import_module("vllm.v1.attention.backend")
        self._state: tuple[Any, ...] = ()

    def enter(
        self, capability: tuple[int, int], *, batch_invariant: bool = False, sparse: bool = False
    ) -> Any:
        """Make this the machine that vLLM's code sees; returns vLLM's DeviceCapability."""
        if self._state != (capability, batch_invariant, sparse):
            self._state = (capability, batch_invariant, sparse)
            self._capability[0] = self.capability_type(*capability)
            os.environ["VLLM_BATCH_INVARIANT"] = str(int(batch_invariant))
            vars(self._model).pop("index_topk", None)
            if sparse:
                self._model.index_topk = 2048
            self._forget()
        return self._capability[0]

    def explain(
        self, capability: tuple[int, int], fields: dict[str, Any], num_heads: int | None = None
    ) -> dict[str, list[str]]:
        """vLLM's reasons by backend, in the order in which they are asked; no reason = valid.

        fields: of AttentionSelectorConfig, dtype as a name ("bfloat16").
        """
        fields = fields | {"dtype": getattr(torch, fields["dtype"])}
        invariant = bool(fields.get("use_batch_invariant"))
        device = self.enter(capability, batch_invariant=invariant, sparse=bool(fields.get("use_sparse")))
        config = self.config_type(**fields)
        valid, invalid = self.cuda.CudaPlatformBase.get_valid_backends(device, config, num_heads)
        ranked: list[tuple[int, str, list[str]]] = [(rank, backend.name, []) for backend, rank in valid]
        ranked += [(rank, backend.name, reasons) for backend, (rank, reasons) in invalid.items()]
        return {name: reasons for _, name, reasons in sorted(ranked)}

    def select(
        self,
        capability: tuple[int, int],
        fields: dict[str, Any],
        num_heads: int | None = None,
        named: str | None = None,
    ) -> str:
        """The name that vLLM's `get_attn_backend_cls` arrives at, or "none" when it raises.

        named: the user's --attention-backend, a member's name.
        """
        fields = fields | {"dtype": getattr(torch, fields["dtype"])}
        invariant = bool(fields.get("use_batch_invariant"))
        self.enter(capability, batch_invariant=invariant, sparse=bool(fields.get("use_sparse")))
        try:
            selected = None if named is None else self.backends[named]
            path = self.platform.get_attn_backend_cls(selected, self.config_type(**fields), num_heads)
        except ValueError as error:
            if not any(
                words in str(error) for words in ("No valid attention backend found", "is not valid for")
            ):
                raise
            return "none"
        (name,) = (member.name for member in self.backends if member.value == path)
        return str(name)

    def _forget(self) -> None:
        """Empty every functools cache in vLLM's modules: they remember the machine."""
        for name in EXECUTED & set(sys.modules):
            for value in list(vars(sys.modules[name]).values()):
                clear = getattr(value, "cache_clear", None) if not isinstance(value, Stub) else None
                if clear is not None:
                    clear()
