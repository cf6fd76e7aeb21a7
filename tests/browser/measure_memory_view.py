"""How the memory view answers with 10,000 recorded accesses, in JupyterLab in Chromium.

    python -m tests.browser.measure_memory_view        # writes bench/results/widget_memory.json

From a click or a key to the frame after the picture has changed; beside it the time that the page's own thread worked, which
a busy machine does not change. Also what Python needs to make the view, and the bytes sent. A measurement with the machine's name,
and no test.
"""

from __future__ import annotations

import ast
from typing import Any

from playwright.sync_api import Page

from tests.browser.jupyterlab import REPOSITORY, Notebook, Server
from tests.browser.measuring import page_clock, run, summary

RESULT = REPOSITORY / "bench" / "results" / "widget_memory.json"
REPEATS = 30
# 64 requests of 52 blocks, three loads a block, in a cache of 4,000 blocks of 16 slots.
SETUP = """import json, time, torch, triton, course, kernels
import triton.language as tl
from course import widgets

@triton.jit
def read_blocks(query_ptr, key_cache_ptr, value_cache_ptr, block_table_ptr, out_ptr, NUM_BLOCKS: tl.constexpr):
    request = tl.program_id(0)
    total = tl.load(query_ptr + request * 64 + tl.arange(0, 64))
    at = tl.arange(0, 16)[:, None] * 64 + tl.arange(0, 64)[None, :]
    for logical in range(NUM_BLOCKS):
        block = tl.load(block_table_ptr + request * NUM_BLOCKS + logical).to(tl.int64)
        key = tl.load(key_cache_ptr + block * 1024 + at)
        total += tl.sum(key + tl.load(value_cache_ptr + block * 1024 + at), axis=0)
    tl.store(out_ptr + request * 64 + tl.arange(0, 64), total)

query, (key_cache, value_cache) = torch.ones(64, 1, 64), torch.ones(2, 4000, 16, 1, 64)
generator = torch.Generator().manual_seed(0)
block_table = torch.randperm(4000, generator=generator)[: 64 * 52].reshape(64, 52).int()
# The last block of each request is read and not owned.
seq_lens = torch.full((64,), 51 * 16)
start = time.perf_counter()
with course.record(query=query, key_cache=key_cache, value_cache=value_cache, block_table=block_table) as recording:
    read_blocks[(64,)](query, key_cache, value_cache, block_table, torch.empty_like(query), NUM_BLOCKS=52)
recorded = time.perf_counter() - start
recording.least = course.recording.least_bytes(seq_lens, key_cache, value_cache)
start, cpu = time.perf_counter(), time.process_time()
view = widgets.MemoryView(recording, block_table, seq_lens)
print({"accesses": len(recording), "marked": int((view.model.columns.reason >= 0).sum()), "record_s": round(recorded, 2),
       "make_view_s": round(time.perf_counter() - start, 2), "make_view_cpu_s": round(time.process_time() - cpu, 2),
       "columns_bytes": sum(map(len, view.columns.values())), "state_bytes": len(json.dumps(view.state))})
view"""
# From an action to the frame after the sentence has changed.
TIMED = """async ([act, repeats]) => {
    const view = document.querySelector('.abc-view'), node = view.querySelector('.abc-step'), times = [];
    const action = new Function('view', 'turn', act);
    for (let turn = 0; turn < repeats; turn++) {
        const before = node.textContent, start = performance.now();
        action(view, turn);
        if (node.textContent === before) throw new Error('nothing changed: ' + before);
        await new Promise(done => requestAnimationFrame(() => setTimeout(done, 0)));
        times.push(performance.now() - start);
        await new Promise(done => setTimeout(done, 60));
    }
    return times;
}"""
PRESS = "[...view.querySelectorAll('.abc-button')].find(each => each.textContent.startsWith('{}')).click();"
SLIDE = "const slider = view.querySelector('input[type=range]'); slider.value = {}; slider.dispatchEvent(new Event('input'));"
CHOOSE = "const select = view.querySelectorAll('select')[{}]; select.value = {}; select.dispatchEvent(new Event('change'));"
CASES = {
    "next access": PRESS.format("Next"),
    "scrub to another place": SLIDE.format("1 + (turn * 7919) % 10000"),
    "scrub from one end to the other": SLIDE.format("turn % 2 ? 0 : slider.max"),
    "next marked access": PRESS.format("Next marked"),
    "choose a program, then all": CHOOSE.format(0, "turn % 2 ? -1 : turn + 5"),
    "choose a tensor, then all": CHOOSE.format(1, "turn % 2 ? -1 : 1"),
    "choose a line, then let it go": "view.querySelectorAll('.abc-mv-touches')[2].click();",
}


def measure(page: Page, server: Server) -> dict[str, Any]:
    notebook = Notebook(page, server, "memory.ipynb")
    made: dict[str, Any] = ast.literal_eval(notebook.run("memory").text)
    page.locator(".abc-view .abc-mv-cell").first.wait_for()
    drawn = page.locator(".abc-view *").count()
    worked = page_clock(page)
    rows = []
    for name, act in CASES.items():
        before = worked()
        times = page.evaluate(TIMED, [act, REPEATS])
        rows.append(summary(name, times, worked() - before))
    return {**made, "elements_on_the_page": drawn, "actions": rows}


if __name__ == "__main__":
    run("memory.ipynb", {"memory": SETUP}, measure, RESULT)
