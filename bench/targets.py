"""What the kernels are meant to reach on a Hopper GPU, and whether a result does."""

from dataclasses import dataclass
from typing import Any

# What NVIDIA's data sheets say of memory, by a word of the GPU's name.
DATA_SHEETS = {"H200": 4.8e12, "H100": 3.35e12}

LEAD = 1.05  # times as fast as the best rival
BANDWIDTH_SHARE = 0.92  # of the data sheet, where there is enough to read
LARGE_KV_BYTES = 1e9
PREFILL_8K_TFLOP = 600.0
TRITON_LEAD = 5.0  # of the plain-Triton tier over vLLM's Triton kernel, in prefill
FA3, VLLM_TRITON = "FlashAttention-3", "vLLM Triton"
TRITON_TIER = "Triton tier"
# Who is "ours" in each kind of case. Rungs and tiers are measured beside it and may be faster: nobody who calls gets them, and
# the best of ten contenders would be the luckiest one too.
CALLS = {
    "decode": "paged_decode",
    "prefill": "paged_attention",
    "mixed": "paged_attention",
    "latent": "latent_decode",
}


@dataclass(frozen=True)
class Verdict:
    """One target in one case. got is None where a contender that it needs was not measured."""

    case: str
    what: str
    wanted: float
    got: float | None

    @property
    def met(self) -> bool:
        return self.got is not None and self.got >= self.wanted


def data_sheet_bytes_per_s(result: dict[str, Any]) -> float:
    """Bytes a second of the GPU that was measured; one that is not known here counts by what it was seen to read."""
    gpu = result["environment"].get("gpu", "")
    known = (bandwidth for word, bandwidth in DATA_SHEETS.items() if word in gpu)
    return next(known, result["ceilings"].get("read_bytes_per_s", DATA_SHEETS["H200"]))


def our_call(row: dict[str, Any]) -> str | None:
    """What stands for us in this case: what a caller calls. None where it was not measured or is wrong."""
    name = CALLS[row["kind"]]
    return name if row["results"].get(name, {}).get("right") else None


def best_peer(row: dict[str, Any], contenders: dict[str, Any]) -> str | None:
    """The fastest peer that reads the paged cache and is right; None where there is none."""
    names = [
        name
        for name, one in row["results"].items()
        if one["right"] and contenders[name]["paged"] and not contenders[name]["ours"]
    ]
    return min(names, key=lambda name: row["results"][name]["us"], default=None)


def verdicts(result: dict[str, Any]) -> list[Verdict]:
    """Every target in every case that it is for."""
    found = []
    for row in result["cases"]:
        found += _verdicts(row, result["contenders"], data_sheet_bytes_per_s(result))
    return found


def _verdicts(row: dict[str, Any], contenders: dict[str, Any], bytes_per_s: float) -> list[Verdict]:
    name, results = row["name"], row["results"]
    ours = our_call(row)
    rival = best_peer(row, contenders)
    if row["kind"] == "prefill":
        rival = FA3 if FA3 in results else None

    def lead(one: str | None, other: str | None) -> float | None:
        if one is None or other is None or one not in results or other not in results:
            return None
        return results[other]["us"] / results[one]["us"]

    found = [Verdict(name, f"times as fast as {rival or 'the best peer'}", LEAD, lead(ours, rival))]
    if row["kind"] == "decode" and row["kv_bytes"] > LARGE_KV_BYTES:
        share = results[ours]["tb_per_s"] * 1e12 / bytes_per_s if ours else None
        what = f"of the data sheet's {bytes_per_s / 1e12:.3g} TB/s"
        found.append(Verdict(name, what, BANDWIDTH_SHARE, share))
    if name == "prefill 1 x 8k":
        found.append(
            Verdict(name, "TFLOP/s", PREFILL_8K_TFLOP, results[ours]["tflop_per_s"] if ours else None)
        )
    if row["kind"] == "prefill":
        tier = next((one for one in results if contenders[one]["ours"] and TRITON_TIER in one), None)
        found.append(
            Verdict(name, "Triton tier, times as fast as vLLM's", TRITON_LEAD, lead(tier, VLLM_TRITON))
        )
    return found
