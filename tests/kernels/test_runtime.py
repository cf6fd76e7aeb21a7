"""What `import kernels` loads, and where it says that kernels run. Each case is a fresh process, with torch loaded."""

import inspect
import os
import subprocess
import sys

import pytest
import torch

import kernels
from kernels import reference, runtime
from tests.kernels.warm_python import WarmPython

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")


@pytest.fixture(scope="module")
def warm():
    warm = WarmPython()
    yield warm
    warm.close()


@pytest.fixture
def run_python(warm):
    """What a fresh process prints that runs this code."""

    def run(code, **environment):
        env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | environment
        return warm.run(code, env)

    return run


def test_a_fresh_process_has_nothing_of_ours_nor_of_the_one_before(run_python):
    code = "import sys; print([m for m in ('kernels', 'triton', 'pytest') if m in sys.modules], 'torch' in sys.modules)"
    for _ in range(2):
        assert run_python(code) == "[] True"
        assert run_python("import os, kernels, triton; print(os.environ['A'])", A="b") == "b"
        assert run_python("import os; print(os.environ.get('A')); 1 / 0").endswith(
            "ZeroDivisionError: division by zero"
        )


def test_import_loads_no_triton(run_python):
    modules = "kernels, kernels.reference, kernels.block_pool, kernels.contract, kernels.tiers"
    assert run_python(f"import sys, {modules}; print('triton' in sys.modules)") == "False"


def test_a_triton_function_loads_triton_on_first_use(run_python):
    code = "import sys, kernels; kernels.paged_decode; print('triton' in sys.modules)"
    assert run_python(code) == "True"


def test_kernels_imports_nothing_of_the_course(run_python):
    code = (
        "import sys, kernels\nfor name in kernels.__all__: getattr(kernels, name)\n"
        "print([m for m in ('course', 'autograder', 'IPython', 'nbgrader', 'bench') if m in sys.modules])"
    )
    assert run_python(code) == "[]"


def test_public_names():
    for name in kernels.__all__:
        assert getattr(kernels, name) is not None
        assert name in dir(kernels)
    with pytest.raises(AttributeError, match="has no attribute 'flash'"):
        kernels.flash  # noqa: B018


@pytest.mark.parametrize(
    "name",
    [
        "cascade_attention",
        "latent_decode",
        "merge_attn_states",
        "paged_attention",
        "paged_decode",
        "paged_prefill",
        "reshape_and_cache",
    ],
)
def test_reference_and_kernel_have_one_signature(name):
    """But for `tier`: a reference has none to choose from."""
    ours = inspect.signature(getattr(kernels, name)).parameters
    theirs = inspect.signature(getattr(reference, name)).parameters
    assert [(p.name, p.kind, p.default) for p in ours.values() if p.name != "tier"] == [
        (p.name, p.kind, p.default) for p in theirs.values()
    ]


def test_explain_takes_what_paged_attention_takes():
    assert list(inspect.signature(kernels.explain).parameters.values()) == list(
        inspect.signature(kernels.paged_attention).parameters.values()
    )


def test_explain_decode_takes_what_paged_decode_takes():
    """But for `tier`: with it there is nothing to explain."""
    assert list(inspect.signature(kernels.explain_decode).parameters.values()) == [
        one for one in inspect.signature(kernels.paged_decode).parameters.values() if one.name != "tier"
    ]


def test_kernels_do_not_load_references(run_python):
    names = ("attention", "cascade", "decode", "kv_cache", "latent", "merge", "prefill", "tiers")
    modules = ", ".join(f"kernels.{name}" for name in names)
    assert run_python(f"import sys, {modules}; print('kernels.reference' in sys.modules)") == "False"


@no_gpu
def test_without_a_gpu_kernels_run_in_the_interpreter(run_python):
    code = "import os, kernels; print(kernels.device(), kernels.INTERPRET, kernels.describe(), os.environ['TRITON_INTERPRET'])"
    assert run_python(code) == "cpu True CPU (Triton interpreter) 1"


@no_gpu
def test_a_kernel_defined_after_import_runs_in_the_interpreter(tmp_path):
    """A learner's kernel, its loop bound computed from a loaded number."""
    script = tmp_path / "learner.py"
    script.write_text(
        "import kernels, torch, triton, triton.language as tl\n"
        "@triton.jit\n"
        "def add_up(x_ptr, n_ptr, out_ptr, TILE: tl.constexpr):\n"
        "    n = tl.load(n_ptr)\n"
        "    total = tl.zeros([TILE], tl.float32)\n"
        "    for i in range(tl.cdiv(n, TILE)):\n"
        "        at = i * TILE + tl.arange(0, TILE)\n"
        "        total += tl.load(x_ptr + at, mask=at < n, other=0.0)\n"
        "    tl.store(out_ptr, tl.sum(total))\n"
        "out = torch.zeros(1)\n"
        "kernels.merge_attn_states(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1))\n"
        "add_up[(1,)](torch.arange(10.0), torch.tensor([10]), out, TILE=4)\n"
        "print(out.item())\n"
    )
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-W", "error::DeprecationWarning", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.stdout.strip() == "45.0", done.stderr


@pytest.mark.parametrize("num_rows", [16, 64])
@pytest.mark.parametrize("head_size", [16, 64, 128, 256])
def test_interpreter_tiles_are_large_but_start_no_threads(head_size, num_rows):
    tile = runtime.interpreter_tile(num_rows, head_size, max_seq_len=5000)
    assert num_rows * head_size * tile <= 2**18
    assert tile == 256 or num_rows * head_size * tile * 2 > 2**18
    assert runtime.interpreter_tile(num_rows, head_size, max_seq_len=0) == 16
    assert runtime.interpreter_tile(16, 64, max_seq_len=33) == 64


USE = "kernels.merge_attn_states(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1))"


@no_gpu
def test_triton_imported_first_is_named_with_the_way_out(run_python):
    message = run_python(f"import triton.language, kernels, torch; {USE}")
    assert "RuntimeError: triton was imported before kernels" in message
    assert "import kernels before triton, or set TRITON_INTERPRET=1" in message


@no_gpu
def test_triton_imported_first_with_the_interpreter_on_is_fine(run_python):
    code = f"import triton.language, kernels, torch; print({USE}[0].item())"
    assert run_python(code, TRITON_INTERPRET="1") == "0.0"


@no_gpu
def test_the_interpreter_turned_off_without_a_gpu(run_python):
    message = run_python(f"import kernels, torch; {USE}", TRITON_INTERPRET="0")
    assert "RuntimeError: this machine has no CUDA GPU, and TRITON_INTERPRET=0 turns" in message
    assert run_python("import kernels; print(kernels.describe())", TRITON_INTERPRET="0").startswith("nowhere")


@no_gpu
@pytest.mark.parametrize("setting", ["1", "true", "on"])
def test_a_setting_of_the_user_is_left_alone(setting, run_python):
    code = "import os, kernels; print(kernels.INTERPRET, os.environ['TRITON_INTERPRET'])"
    assert run_python(code, TRITON_INTERPRET=setting) == f"True {setting}"


@pytest.mark.gpu
def test_with_a_gpu_kernels_are_compiled():
    assert kernels.device().type == "cuda"
    assert "compute capability" in kernels.describe()
    with pytest.raises(ValueError, match="outputs: expected a tensor on cuda"):
        kernels.merge_attn_states(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1))
