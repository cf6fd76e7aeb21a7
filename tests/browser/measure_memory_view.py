"""How the memory view answers with 10,000 recorded accesses, in JupyterLab in Chromium.

    python -m tests.browser.measure_memory_view        # writes bench/results/widget_memory.json

From a click or a key to the frame after the picture has changed; beside it the time that the page's own thread worked, which
a busy machine does not change. Also what Python needs to make the view, and the bytes sent. A measurement with the machine's name,
and no test.
"""

from __future__ import annotations

import ast
import json
import os
import platform
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Page, sync_playwright

from bench.machine import now
from tests.browser.jupyterlab import REPOSITORY, Notebook, Server

RESULT = REPOSITORY / "bench" / "results" / "widget_memory.json"
TARGET_MS = 100
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
    counters = page.context.new_cdp_session(page)
    counters.send("Performance.setTimeDomain", {"timeDomain": "threadTicks"})
    counters.send("Performance.enable")

    def worked() -> float:
        metrics = counters.send("Performance.getMetrics")["metrics"]
        return next(float(each["value"]) for each in metrics if each["name"] == "TaskDuration")

    rows = []
    for name, act in CASES.items():
        before = worked()
        times = sorted(page.evaluate(TIMED, [act, REPEATS]))
        rows.append(
            {
                "action": name,
                "page_cpu_ms": round((worked() - before) / REPEATS * 1000, 1),
                "least_ms": round(times[0], 1),
                "median_ms": round(statistics.median(times), 1),
                "p90_ms": round(times[int(0.9 * len(times))], 1),
                "largest_ms": round(times[-1], 1),
            }
        )
    return {**made, "elements_on_the_page": drawn, "actions": rows}


def main() -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        course = Path(folder) / "course"
        course.mkdir()
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        cells = [nbformat.v4.new_code_cell(SETUP, id="memory")]
        nbformat.write(
            nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), course / "memory.ipynb"
        )
        server = Server(course, Path(folder) / "home")
        try:
            server.wait_until_it_answers()
            browser = playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"]
            )
            result = measure(browser.new_page(viewport={"width": 1440, "height": 900}), server)
            result["environment"] = {
                "browser": f"Chromium {browser.version}, headless",
                "processor": _processor(),
                "cores": os.cpu_count(),
                "load_average": [round(each, 1) for each in os.getloadavg()],
                "python": platform.python_version(),
                "date": now(),
            }
            browser.close()
        finally:
            server.stop()
    result["target_ms"] = TARGET_MS
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def _processor() -> str:
    """The processor's name as Linux has it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )


if __name__ == "__main__":
    main()
