"""How long the block table's explorer takes to answer with 1,000 blocks and 64 requests, in JupyterLab in Chromium.

    python -m tests.browser.measure_block_table        # writes bench/results/widgets.json

From a click or a key to the frame after the picture has changed: page, kernel and back. Beside it the time that the page's
thread and the kernel computed, which a busy machine does not change. A measurement with the machine's name, and no test.
"""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

from tests.browser.jupyterlab import REPOSITORY, Notebook, Server
from tests.browser.measuring import page_clock, run, summary

RESULT = REPOSITORY / "bench" / "results" / "widgets.json"
REPEATS = 30
SETUP = """import random
import kernels
from course import widgets
rng = random.Random(0)
pool = kernels.BlockPool(1000, 16)
for request in range(64):
    pool.allocate(f"r{request}", token_ids=[1000 * request + token for token in range(rng.randint(100, 250))])
explorer = widgets.BlockTableExplorer(pool)
print(pool.describe().splitlines()[0])
explorer"""
# From an action to the frame after `what` has changed. The kernel's own part is measured beside it.
TIMED = """async ([act, what, repeats]) => {
    const view = document.querySelector('.abc-view'), times = [];
    const node = view.querySelector(what), action = new Function('view', 'turn', act);
    for (let turn = 0; turn < repeats; turn++) {
        const before = node.textContent, start = performance.now();
        action(view, turn);
        while (node.textContent === before) {
            await new Promise(requestAnimationFrame);
            if (performance.now() - start > 10000) throw new Error('nothing changed');
        }
        await new Promise(done => requestAnimationFrame(() => setTimeout(done, 0)));
        times.push(performance.now() - start);
        await new Promise(done => setTimeout(done, 60));
    }
    return times;
}"""
PRESS = (
    "view.querySelectorAll('.abc-button').forEach(each => {{ if (each.textContent === '{}') each.click(); }})"
)
KEY = "{key: turn % 12 < 6 ? 'ArrowRight' : 'ArrowDown', bubbles: true, cancelable: true}"
CASES = {
    "select a block with a key": (
        f"view.querySelector('.abc-block[tabindex=\"0\"]').dispatchEvent(new KeyboardEvent('keydown', {KEY}))",
        ".abc-details",
    ),
    "append to a request": (PRESS.format("Append"), ".abc-said"),
    "fork a request": (PRESS.format("Fork"), ".abc-said"),
    "admit a request": (PRESS.format("Admit"), ".abc-said"),
    "one step back": (PRESS.format("Previous"), ".abc-said"),
    "one step forward": (PRESS.format("Next"), ".abc-said"),
}
IN_KERNEL = f"""import time
took = []
for _ in range({REPEATS}):
    start = time.process_time()
    explorer.do("append", "r0", 1)
    took.append(time.process_time() - start)
print(sorted(took)[len(took) // 2] * 1000)"""


def measure(page: Page, server: Server) -> dict[str, Any]:
    notebook = Notebook(page, server, "explorer.ipynb")
    pool = notebook.run("explorer").text.strip()
    page.locator(".abc-view .abc-block").first.wait_for()
    page.locator(".abc-view .abc-block").first.click()
    worked = page_clock(page)
    requests = page.locator(".abc-request").count()
    rows = []
    for name, (act, what) in CASES.items():
        before = worked()
        times = page.evaluate(TIMED, [act, what, REPEATS])
        rows.append(summary(name, times, worked() - before))
    in_kernel = float(notebook.run("kernel").text)
    return {
        "pool": pool,
        "requests": requests,
        "actions": rows,
        "append_kernel_cpu_ms": round(in_kernel, 1),
    }


if __name__ == "__main__":
    run("explorer.ipynb", {"explorer": SETUP, "kernel": IN_KERNEL}, measure, RESULT)
