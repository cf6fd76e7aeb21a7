"""vLLM 0.22.1's own source, for reading, out of the released wheel: nothing is built or installed.

    root()                         the folder that holds `vllm/...`; the first call brings it (a download
                                   of 261 MB, of which 6 MB of Python files are kept)
    read(path)                     the text of one file, e.g. "vllm/v1/attention/selector.py"
    locate(path, qualname)         (first line, last line) of a definition, by syntax tree
    python -m course.vllm.source   brings the source; with a path and a name it prints the place

pip does the download, with whatever index, proxy or folder of wheels (`PIP_FIND_LINKS`, `PIP_NO_INDEX`) it
is configured for, and holds the wheel against the hash below. What is kept lies in `$COURSE_VLLM_SOURCE` if
that is set, else in the user's cache folder, and every file is held against `course/data/vllm_0_22_1_files.json`
each time it is read.
"""

import ast
import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

VERSION = "0.22.1"
WHEEL_SHA256 = "cc50536c93827a577b2bc45f038b8b866c31ed220631008521a337c9b2558f4d"
CACHE_VARIABLE = "COURSE_VLLM_SOURCE"
FILES = Path(__file__).parents[1] / "data" / "vllm_0_22_1_files.json"

# What is kept of the wheel: the attention code and what stands around it, from the scheduler's blocks to
# the kernels' wrappers. METADATA and RECORD say what the release requires and ships.
KEPT_FOLDERS = (
    "vllm/v1/attention/",
    "vllm/v1/core/",
    "vllm/v1/worker/",
    "vllm/platforms/",
    "vllm/config/",
    "vllm/model_executor/layers/attention/",
    "vllm/vllm_flash_attn/",
)
KEPT_FILES = (
    "vllm/_custom_ops.py",
    "vllm/engine/arg_utils.py",
    "vllm/env_override.py",
    "vllm/envs.py",
    "vllm/forward_context.py",
    "vllm/model_executor/layers/attention_layer_base.py",
    "vllm/model_executor/layers/quantization/utils/quant_utils.py",
    "vllm/model_executor/models/llama.py",
    "vllm/utils/flashinfer.py",
    "vllm/utils/import_utils.py",
    "vllm/utils/math_utils.py",
    "vllm/utils/torch_utils.py",
    "vllm/v1/kv_cache_interface.py",
    "vllm/v1/sample/logits_processor/__init__.py",
    f"vllm-{VERSION}.dist-info/METADATA",
    f"vllm-{VERSION}.dist-info/RECORD",
)


class SourceUnavailable(RuntimeError):
    """vLLM's source could not be brought, or is not what was released. Its text is one sentence."""


def cache_folder() -> Path:
    """The folder that holds, or will hold, the kept files. Nothing is downloaded."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "attention-backends-course" / f"vllm-{VERSION}"


@functools.cache
def expected_files() -> dict[str, str]:
    """The kept files by path, each with the SHA-256 that it has in the release."""
    listing: dict[str, str] = json.loads(FILES.read_text(encoding="utf-8"))
    return listing


def root() -> Path:
    """The folder that holds `vllm/...`, after bringing it if it is not there yet.

    Raises SourceUnavailable when it is not there and cannot be brought.
    """
    folder = cache_folder()
    if not all((folder / path).is_file() for path in expected_files()):
        _bring(folder)
    return folder


def read(path: str) -> str:
    """The text of a kept file, e.g. `read("vllm/v1/attention/selector.py")`.

    Raises ValueError for a path that is not kept, SourceUnavailable when the file is not the released one.
    """
    if path not in expected_files():
        raise ValueError(
            f"path: expected one of the {len(expected_files())} kept files of vLLM, got {path!r}"
        )
    data = (root() / path).read_bytes()
    if hashlib.sha256(data).hexdigest() != expected_files()[path]:
        raise SourceUnavailable(
            f"{path} in {cache_folder()} is not the file that vLLM {VERSION} released; "
            "delete that file to fetch it again."
        )
    return data.decode("utf-8")


def verify() -> Path:
    """Hold every kept file against the committed list, and return `root()`.

    Raises SourceUnavailable at the first file that differs.
    """
    for path in expected_files():
        read(path)
    return root()


@functools.cache
def definitions(path: str) -> dict[str, tuple[int, int]]:
    """Every definition of a kept file: qualified name -> (first line, last line), counted from 1.

    Classes, functions, and names assigned in a module or a class. The first line is that of `class`, `def`
    or the assignment, not of a decorator. Of a name that is defined twice (the branches of an `if`), the
    first counts.
    """
    found: dict[str, tuple[int, int]] = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                name = prefix + child.name
                found.setdefault(name, (child.lineno, child.end_lineno or child.lineno))
                visit(child, name + ".")
                continue
            if isinstance(child, ast.Assign | ast.AnnAssign):
                for target in child.targets if isinstance(child, ast.Assign) else [child.target]:
                    if isinstance(target, ast.Name):
                        found.setdefault(prefix + target.id, (child.lineno, child.end_lineno or child.lineno))
            if not isinstance(child, ast.expr):
                visit(child, prefix)

    visit(ast.parse(read(path)), "")
    return found


def locate(path: str, qualname: str) -> tuple[int, int]:
    """(first line, last line) of a definition; a method is asked for as "FlashAttentionImpl.forward".

    Raises ValueError when the file has no definition of that name.
    """
    found = definitions(path)
    if qualname not in found:
        raise ValueError(f"qualname: {path} of vLLM {VERSION} defines no {qualname!r}")
    return found[qualname]


def find(path: str) -> str:
    """The one kept file whose path ends in `path`: "attention/selector.py" -> "vllm/v1/attention/selector.py".

    Raises ValueError when no kept file, or more than one, ends so.
    """
    if path in expected_files():
        return path
    parts = PurePosixPath(path).parts
    matches = [full for full in expected_files() if PurePosixPath(full).parts[-len(parts) :] == parts]
    if len(matches) != 1:
        what = "none" if not matches else ", ".join(matches[:4])
        raise ValueError(
            f"path: expected the end of one kept file of vLLM {VERSION}, got {path!r}, which fits {what}"
        )
    return matches[0]


def _kept(path: str) -> bool:
    return path in KEPT_FILES or (path.endswith(".py") and path.startswith(KEPT_FOLDERS))


def _bring(folder: Path) -> None:
    """Download the wheel and move the few files of it into place, each in one step; nothing is deleted there."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".vllm-") as name:
            scratch = Path(name)
            _unpack(_download(scratch), scratch / "kept")
            _check(scratch / "kept")
            for path in expected_files():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                os.replace(scratch / "kept" / path, folder / path)
    except OSError as error:
        raise SourceUnavailable(f"vLLM's source cannot be kept in {folder}: {error}.") from error


def _download(scratch: Path) -> Path:
    requirements = scratch / "vllm.txt"
    requirements.write_text(f"vllm=={VERSION} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
    # The wheel is read, never run, so it is asked for by name of its platform, whatever machine this is.
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-color",
        "--disable-pip-version-check",
        "--no-deps",
    ]
    command += ["--require-hashes", "--only-binary=:all:", "--platform", "manylinux_2_28_x86_64"]
    command += ["--python-version", "3.12", "--implementation", "cp", "--abi", "abi3"]
    command += ["--dest", str(scratch), "--requirement", str(requirements)]
    print(f"Fetching vLLM {VERSION}'s source (once, 261 MB; 6 MB of it are kept) ...", file=sys.stderr)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("vllm-*.whl"))
    if done.returncode or len(wheels) != 1:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        if any("do not match the hashes" in line.lower() for line in said):
            raise SourceUnavailable(
                f"The wheel that pip found is not the released vLLM {VERSION}: its SHA-256 differs."
            )
        reason = next(
            (line for line in reversed(said) if line.startswith("ERROR")), said[-1] if said else "no output"
        )
        raise SourceUnavailable(f"pip could not download vLLM {VERSION} (is this machine offline?): {reason}")
    return wheels[0]


def _unpack(wheel: Path, destination: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for path in archive.namelist():
            if _kept(path):
                target = destination / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(path))


def _check(folder: Path) -> None:
    for path, digest in expected_files().items():
        file = folder / path
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise SourceUnavailable(
                f"{path} in the wheel is not what the committed list of vLLM {VERSION} expects."
            )


def main(arguments: list[str]) -> int:
    """`python -m course.vllm.source [path [qualname]]`."""
    try:
        if not arguments:
            print(verify())
        elif len(arguments) == 1:
            print(read(find(arguments[0])), end="")
        else:
            path = find(arguments[0])
            print("{}:{}-{}".format(path, *locate(path, arguments[1])))
    except (SourceUnavailable, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
