"""Question 1's eight deployments, each a model on a GPU: which backend does vLLM 0.22.1 pick by default?

table()             the eight, as a table in a notebook
walk(deployment)    whom vLLM asks, in which order, and what each answers
DEPLOYMENTS         the eight by name, as `course.vllm.rules.Deployment`
CANDIDATES          what a verdict may be
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from course.vllm.rules import Deployment, candidates, explain

CANDIDATES = candidates()


@dataclass(frozen=True)
class Scenario:
    """A deployment with what a person wants to know beside it.

    gpu, model: their names. batch: what one step computes, in words; "decode", "prefill" or "mixed" comes first.
    sentence: who runs this and why.
    """

    deployment: Deployment
    gpu: str
    model: str
    batch: str
    sentence: str


SCENARIOS = {
    "h100-llama-bf16": Scenario(
        Deployment(capability=(9, 0), dtype="bfloat16", head_size=128, num_heads=32),
        gpu="H100",
        model="Llama 3.1 8B",
        batch="prefill: 1 prompt of 8192 tokens",
        sentence="The usual model on the usual GPU.",
    ),
    "b200-llama-bf16": Scenario(
        Deployment(capability=(10, 0), dtype="bfloat16", head_size=128, num_heads=32),
        gpu="B200",
        model="Llama 3.1 8B",
        batch="decode: 256 requests",
        sentence="The same model moves to a Blackwell GPU.",
    ),
    "b200-phi3-bf16": Scenario(
        Deployment(capability=(10, 0), dtype="bfloat16", head_size=96, num_heads=32),
        gpu="B200",
        model="Phi-3 mini",
        batch="decode: 64 requests",
        sentence="A small model whose heads are 96 wide, on the same GPU.",
    ),
    "t4-llama1b-fp16": Scenario(
        Deployment(capability=(7, 5), dtype="float16", head_size=64, num_heads=32),
        gpu="T4",
        model="Llama 3.2 1B",
        batch="decode: 4 requests",
        sentence="A Turing GPU that a cloud gives away; it has no bfloat16.",
    ),
    "a100-gptoss-bf16": Scenario(
        Deployment(capability=(8, 0), dtype="bfloat16", head_size=64, has_sink=True, num_heads=64),
        gpu="A100",
        model="gpt-oss 20B",
        batch="mixed: 30 decodes and a 2048-token chunk of a prompt",
        sentence="A model whose softmax has attention sinks, on an Ampere GPU.",
    ),
    "a10-tiny-fp32": Scenario(
        Deployment(capability=(8, 6), dtype="float32", head_size=16, num_heads=4),
        gpu="A10",
        model="a random toy model",
        batch="prefill: 1 prompt of 12 tokens",
        sentence="A model of 4 heads, 16 wide each, in full precision: somebody's test suite needs exact numbers.",
    ),
    "h200-deepseek-fp8kv": Scenario(
        Deployment(
            capability=(9, 0),
            dtype="bfloat16",
            head_size=576,
            kv_cache_dtype="fp8",
            use_mla=True,
            num_heads=16,
        ),
        gpu="H200",
        model="DeepSeek-V3",
        batch="decode: 512 requests",
        sentence="Latent attention over 8 GPUs, with an fp8 cache so that more requests fit.",
    ),
    "rtx4090-qwen-block8": Scenario(
        Deployment(capability=(8, 9), dtype="bfloat16", head_size=128, block_size=8, num_heads=32),
        gpu="RTX 4090",
        model="Qwen3 8B",
        batch="decode: 16 requests",
        sentence="Somebody read that small blocks waste less memory and starts vLLM with --block-size 8.",
    ),
}
DEPLOYMENTS = {name: scenario.deployment for name, scenario in SCENARIOS.items()}


@dataclass(frozen=True)
class Table:
    """Rows of text: an HTML table in a notebook, aligned columns elsewhere. The first column names the row."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __repr__(self) -> str:
        lines = [self.header, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.header))]
        cells = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
        return "\n".join([self.caption, *("  ".join(line).rstrip() for line in cells)])

    def _repr_html_(self) -> str:
        left = ' style="text-align: left"'
        head = "".join(f'<th scope="col"{left}>{escape(cell)}</th>' for cell in self.header)
        body = ""
        for name, *cells in self.rows:
            # A name is one word: broken at its hyphens it is hard to find again.
            code = f'<code style="white-space: nowrap">{escape(name)}</code>'
            body += f'<tr><th scope="row"{left}>{code}</th>'
            body += "".join(f"<td{left}>{escape(cell)}</td>" for cell in cells) + "</tr>"
        caption = f"<caption{left}>{escape(self.caption)}</caption>"
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def table() -> Table:
    """The eight deployments with everything that a verdict could depend on, and one thing that it cannot."""
    header = ["deployment", "GPU (capability)", "model", "dtype", "head size", "KV dtype", "--block-size"]
    header += ["MLA", "sinks", "batch"]
    rows = []
    for name, scenario in SCENARIOS.items():
        deployment = scenario.deployment
        major, minor = deployment.capability
        row = [name, f"{scenario.gpu} ({major}.{minor})", scenario.model, deployment.dtype]
        row += [str(deployment.head_size), str(deployment.kv_cache_dtype), _or_dash(deployment.block_size)]
        row += [_yes(deployment.use_mla), _yes(deployment.has_sink), scenario.batch]
        rows.append(row)
    return Table("Eight deployments", header, rows)


def walk(deployment: Deployment) -> Table:
    """Whom vLLM asks for this deployment, in its order, and what each answers. The first "valid" is the choice."""
    rows = [[name, "; ".join(reasons) or "valid"] for name, reasons in explain(deployment).items()]
    return Table("In the order of asking", ["backend", "its answer"], rows)


def _or_dash(value: int | None) -> str:
    return "not set" if value is None else str(value)


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"
