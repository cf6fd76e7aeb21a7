"""Run a Gluon program on the CPU, threads for its partitions, to test what it computes and that it comes to an end.

Triton has no interpreter for Gluon. This stands in for the part of it that the Hopper programs in kernels/ use: whole
numbers are Python's, tensors are torch's, shared memory is too, and layouts are nothing. What can go wrong in such a program
is kept: barriers have phases and counts (an arrival too many is an error, a wait without end too), the copy engine fills
what lies outside a tensor with zeros, shared memory starts as NaN, and a product of the tensor cores reads its operands only
when it is waited for, so that a tile that was given back too early has been overwritten by then.
"""

import importlib
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import kernels
from kernels import runtime

WAIT_SECONDS = 30.0  # nothing takes that long unless it never comes
_program = threading.local()


class Value(torch.Tensor):
    """A tensor of a program. As there, nothing changes a value: x += 1 makes another."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), options=None):
        # What torch.Tensor's own does, without looking for subclasses of this one.
        with torch._C.DisableTorchFunctionSubclass():
            result = function(*arguments, **(options or {}))
            return result.as_subclass(cls) if type(result) is torch.Tensor else result

    def __iadd__(self, other):
        return self + other

    def __isub__(self, other):
        return self - other

    def __ixor__(self, other):
        return self ^ other


class Scalar(int):
    """A whole number of a program. What is computed with it is one too."""

    def to(self, dtype):
        return self


def _as_scalar(name):
    operation = getattr(int, name)

    def of_scalars(self, other):
        result = operation(self, other)
        return result if result is NotImplemented else Scalar(result)

    return of_scalars


for _name in ("add", "sub", "mul", "floordiv", "mod", "and", "or", "xor"):
    for _kind in (f"__{_name}__", f"__r{_name}__"):
        setattr(Scalar, _kind, _as_scalar(_kind))


def value(tensor):
    """What a program sees of a tensor: of one whole number, the number."""
    if tensor.dim() == 0 and tensor.dtype in (torch.int32, torch.int64):
        return Scalar(tensor.item())
    return tensor.as_subclass(Value)


class Pointer:
    """Element addresses: a storage and offsets into it."""

    def __init__(self, storage, offset):
        self.storage = storage
        self.offset = offset

    @property
    def dtype(self):
        return types.SimpleNamespace(element_ty=self.storage.dtype)

    def __add__(self, other):
        return Pointer(self.storage, self.offset + other)

    @staticmethod
    def to(tensor):
        size = tensor.untyped_storage().nbytes() // tensor.element_size()
        flat = torch.as_strided(tensor, (size,), (1,), 0)
        return Pointer(flat, Scalar(tensor.storage_offset()))


def load(pointer, mask=None, other=0):
    offset = pointer.offset
    if isinstance(offset, int):
        return value(pointer.storage[offset]) if mask is None or mask else other
    if mask is not None:
        offset = torch.where(torch.as_tensor(mask), offset, 0)
    found = value(pointer.storage[offset])
    return found if mask is None else torch.where(torch.as_tensor(mask), found, other)


def store(pointer, new, mask=None):
    new = torch.as_tensor(new, dtype=pointer.storage.dtype)
    offset, new = torch.broadcast_tensors(torch.as_tensor(pointer.offset), new)
    if mask is not None:
        mask = mask.expand(offset.shape)
        offset, new = offset[mask], new[mask]
    pointer.storage[offset] = new


_atomic = threading.Lock()


def atomic_add(pointer, addend):
    with _atomic:
        old = pointer.storage[pointer.offset].clone()
        pointer.storage[pointer.offset] += addend
    return value(old)


class Shared:
    """A piece of shared memory."""

    def __init__(self, data):
        self.data = data
        self.dtype = data.dtype
        self.shape = data.shape

    def index(self, i):
        return Shared(self.data[int(i)])

    def slice(self, start, length, dim=0):
        return Shared(self.data.narrow(dim, int(start), length))

    def permute(self, order):
        return Shared(self.data.permute(order))

    def _reinterpret(self, dtype, shape, layout):
        return Shared(self.data.view(shape))

    def load(self, layout):
        return value(self.data.clone())

    def store(self, new):
        self.data.copy_(new)


def allocate_shared_memory(dtype, shape, layout):
    fill = float("nan") if dtype.is_floating_point else -(2**30)
    if layout == "barrier":
        return Barriers(shape[0])
    return Shared(torch.full(shape, fill, dtype=dtype))


class Barriers:
    def __init__(self, count):
        self.all = [Barrier() for _ in range(count)]

    def index(self, i):
        return self.all[int(i)]


class Barrier:
    """An mbarrier: a phase ends when all arrivals and all expected bytes have come."""

    def __init__(self):
        self.changed = threading.Condition()
        self.count = 0
        self.phase = 0
        self.missing = 0
        self.bytes = 0

    def init(self, count):
        self.count = self.missing = count

    def update(self, arrivals, num_bytes):
        with self.changed:
            self.missing -= arrivals
            self.bytes += num_bytes
            assert self.missing >= 0, "more arrivals than a phase of this barrier has"
            if self.missing == 0 and self.bytes == 0:
                self.phase += 1
                self.missing = self.count
                self.changed.notify_all()

    def wait(self, parity):
        with self.changed:
            came = self.changed.wait_for(lambda: self.phase % 2 != parity, WAIT_SECONDS)
        assert came, "a barrier that nobody will complete"


def _mbarrier():
    module = types.SimpleNamespace()
    module.MBarrierLayout = lambda: "barrier"
    module.init = lambda barrier, count: barrier.init(count)
    module.wait = lambda barrier, phase, pred=True: barrier.wait(int(phase)) if pred else None
    module.arrive = lambda barrier, count=1, pred=True: barrier.update(count, 0) if pred else None
    module.expect = lambda barrier, num_bytes: barrier.update(1, num_bytes)
    return module


@dataclass
class TensorDescriptor:
    base: torch.Tensor
    shape: list[int]
    strides: list[int]
    block_shape: list[int]
    layout: Any

    def __post_init__(self):
        assert self.strides[-1] == 1
        assert all(stride * self.base.element_size() % 16 == 0 for stride in self.strides[:-1])
        assert self.base.data_ptr() % 16 == 0
        assert all(size > 0 for size in self.shape)
        self.tensor = torch.as_strided(self.base, self.shape, self.strides, self.base.storage_offset())

    @property
    def dtype(self):
        return self.base.dtype


def copy_box(descriptor, coordinates, barrier, shared):
    """What the copy engine does: a box of a tensor, zeros where the box leaves it."""
    box = shared.data.view(descriptor.block_shape)
    inside, target, whole = [], [], True
    for start, size, length in zip(coordinates, descriptor.shape, descriptor.block_shape, strict=True):
        first, last = max(start, 0), min(start + length, size)
        inside.append(slice(first, last))
        target.append(slice(first - start, last - start))
        whole = whole and last - first == length
    if not whole:
        box.zero_()
    if all(piece.stop > piece.start for piece in inside):
        box[tuple(target)] = descriptor.tensor[tuple(inside)]
    barrier.update(0, -box.numel() * box.element_size())


@dataclass
class Product:
    """A product that the tensor cores were asked for and nobody has waited for."""

    left: Any
    right: Shared
    acc: "torch.Tensor | Product | None"  # a product: the tensor cores add to it when it is done

    def result(self):
        left = self.left.data if isinstance(self.left, Shared) else self.left
        product = left.float() @ self.right.data.float()
        acc = self.acc.result() if isinstance(self.acc, Product) else self.acc
        return product if acc is None else acc + product


def warpgroup_mma(left, right, acc, use_acc=True, is_async=True):
    assert isinstance(acc, torch.Tensor | Product)
    return Product(left, right, acc if use_acc else None)


def warpgroup_mma_wait(num_outstanding, deps):
    done = tuple(each.result() if isinstance(each, Product) else each for each in deps)
    return done[0] if len(done) == 1 else done


def warp_specialize(partitions, num_warps, num_registers):
    errors = []
    index, count = _program.index, _program.count

    def run(function, arguments):
        _program.index, _program.count = index, count
        try:
            function(*arguments)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=each, daemon=True) for each in partitions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_SECONDS * 4)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads)


def move(asm, constraints, args, dtype, is_pure, pack):
    """The one piece of assembly that a program has."""
    assert (asm, constraints, dtype) == ("mov.b32 $0, $1;", "=r,r", torch.int32)
    return value(torch.tensor(args[0], dtype=dtype))


def to_device(argument):
    """What a kernel sees of an argument of its launch."""
    if isinstance(argument, torch.Tensor):
        return Pointer.to(argument)
    return Scalar(argument) if isinstance(argument, int) else argument


class Kernel:
    """kernel[grid](...): the programs one after another, or `together`, as on a GPU: in threads."""

    together = False

    def __init__(self, function):
        self.function = function

    def __getitem__(self, grid):
        def launch(*arguments, num_warps, maxnreg=None, launch_pdl=False, **constants):
            arguments = [to_device(argument) for argument in arguments]

            def run(index):
                _program.index, _program.count = index, grid[0]
                self.function(*arguments, **constants)

            if not self.together:
                for index in range(grid[0]):
                    run(index)
                return
            with ThreadPoolExecutor(grid[0]) as pool:
                list(pool.map(run, range(grid[0])))

        return launch


def jit(function=None, **options):
    if function is None:
        return Kernel
    return function


def associative_scan(x, axis, combine):
    """The only one that a program has is a running sum."""
    assert combine(2, 3) == 5
    return value(x.cumsum(axis))


def _pair(of_numbers, of_tensors):
    def of_both(a, b):
        if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
            return of_tensors(torch.as_tensor(a), torch.as_tensor(b))
        return of_numbers(a, b)

    return of_both


def where(condition, a, b):
    if isinstance(condition, torch.Tensor):
        return torch.where(condition, a, b)
    return a if condition else b


def _gl():
    module = types.ModuleType("triton.experimental.gluon.language")
    layout = lambda *arguments, **options: None  # noqa: E731
    for name in ("NVMMADistributedLayout", "DotOperandLayout", "SliceLayout", "BlockedLayout"):
        setattr(module, name, layout)
    module.SwizzledSharedLayout = layout
    module.NVMMASharedLayout = types.SimpleNamespace(get_default_for=layout)
    module.constexpr = lambda value: value
    module.int32, module.int64, module.float32 = torch.int32, torch.int64, torch.float32
    module.float16, module.bfloat16 = torch.float16, torch.bfloat16
    module.program_id = lambda axis: Scalar(_program.index)
    module.num_programs = lambda axis: Scalar(_program.count)
    module.static_range = range
    module.arange = lambda start, end, layout: value(torch.arange(start, end, dtype=torch.int32))
    module.zeros = lambda shape, dtype, layout: value(torch.zeros(shape, dtype=dtype))
    module.full = lambda shape, fill, dtype, layout: value(torch.full(shape, fill, dtype=dtype))
    module.load, module.store, module.atomic_add = load, store, atomic_add
    module.minimum, module.maximum = _pair(min, torch.minimum), _pair(max, torch.maximum)
    module.cdiv = lambda a, b: (a + b - 1) // b
    module.where = where
    module.sum = lambda x, axis=None: value(x.sum(axis) if axis is not None else x.sum())
    module.max = lambda x, axis=None: value(x.amax(axis) if axis is not None else x.amax())
    module.associative_scan = associative_scan
    module.exp2, module.log2 = torch.exp2, torch.log2
    module.expand_dims = lambda x, axis: x.unsqueeze(axis)
    module.convert_layout = lambda x, layout, assert_trivial=False: x
    module.allocate_shared_memory = allocate_shared_memory
    module.warp_specialize = warp_specialize
    module.inline_asm_elementwise = move
    module.barrier = lambda: None
    return module


@contextmanager
def emulated_gluon():
    """While it lasts, an import of Gluon gets this."""
    gluon = types.ModuleType("triton.experimental.gluon")
    gluon.jit = jit
    gluon.language = _gl()
    hopper = types.ModuleType("triton.experimental.gluon.language.nvidia.hopper")
    hopper.fence_async_shared = lambda: None
    hopper.mbarrier = _mbarrier()
    hopper.tma = types.SimpleNamespace(async_copy_global_to_shared=copy_box)
    hopper.warpgroup_mma, hopper.warpgroup_mma_wait = warpgroup_mma, warpgroup_mma_wait
    host = types.ModuleType("triton.experimental.gluon.nvidia.hopper")
    host.TensorDescriptor = TensorDescriptor
    experimental = types.ModuleType("triton.experimental")
    experimental.gluon = gluon
    language = gluon.language
    fakes = {
        "triton.experimental": experimental,
        "triton.experimental.gluon": gluon,
        "triton.experimental.gluon.language": language,
        "triton.experimental.gluon.language.nvidia": types.ModuleType("nvidia"),
        "triton.experimental.gluon.language.nvidia.hopper": hopper,
        "triton.experimental.gluon.nvidia": types.ModuleType("nvidia"),
        "triton.experimental.gluon.nvidia.hopper": host,
    }
    kept = {name: sys.modules.get(name) for name in fakes}
    sys.modules.update(fakes)
    try:
        yield
    finally:
        for name, module in kept.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def emulate(monkeypatch, *names):
    """Load these modules of `kernels` anew, over the emulation, and have the CPU pass for a machine that runs them.

    After the test they are what they were before: on a machine with a GPU the same process may run the real ones.
    """
    if not runtime.INTERPRET:
        pytest.skip("beside the emulation Triton's kernels run, in the interpreter")
    with emulated_gluon():
        for name in names:
            # Remembered first: what is not loaded yet, or not an attribute yet, is so again afterwards.
            monkeypatch.setitem(sys.modules, f"kernels.{name}", None)
            monkeypatch.setattr(kernels, name, None, raising=False)
            del sys.modules[f"kernels.{name}"]
        modules = [importlib.import_module(f"kernels.{name}") for name in names]
    monkeypatch.setattr(runtime, "hopper_objection", lambda device, kernel_module: None)
    return modules
