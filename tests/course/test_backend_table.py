"""The table that question 1 is answered from says what vLLM's rules say, no more and no less."""

import pytest

from course import backend_table, deployments
from course.vllm.rules import select


def rows(capability: tuple[int, int], use_mla: bool = False) -> dict[str, dict[str, str]]:
    table = backend_table.accepts(capability, use_mla=use_mla)
    return {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}


@pytest.mark.parametrize("name", deployments.DEPLOYMENTS)
def test_every_verdict_follows_from_the_table(name: str) -> None:
    """A learner with the table and nothing else reaches the right verdict: the first row that accepts everything."""
    wanted = deployments.DEPLOYMENTS[name]

    def takes(row: dict[str, str]) -> bool:
        return (
            row["this GPU"] == "yes"
            and str(wanted.head_size) in row["head size"].split(", ")
            and wanted.dtype in row["dtype"].split(", ")
            and wanted.kv_cache_dtype in row["KV dtype"].split(", ")
            and (wanted.block_size is None or str(wanted.block_size) in row["--block-size"].split(", "))
            and (not wanted.has_sink or row["sinks"] == "yes")
        )

    found = rows(wanted.capability, wanted.use_mla)
    verdict = next((backend for backend, row in found.items() if takes(row)), "none")
    assert verdict == select(wanted)


def test_known_rows() -> None:
    t4 = rows((7, 5))
    assert t4["FLASH_ATTN"]["this GPU"] == "no"
    assert t4["FLASHINFER"]["this GPU"] == "yes"
    assert rows((9, 0))["FLASH_ATTN"]["KV dtype"] == "auto, fp8"
    assert rows((8, 9))["FLASH_ATTN"]["KV dtype"] == "auto"
    assert next(iter(rows((10, 0)))) == "FLASHINFER"
    assert "FLASHMLA_SPARSE" not in rows((9, 0), use_mla=True)


def test_unknown_gpu() -> None:
    with pytest.raises(ValueError, match="capability"):
        backend_table.accepts((3, 5))
