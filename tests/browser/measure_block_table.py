"""How long the block table's explorer takes to answer with 1,000 blocks and 64 requests, in JupyterLab in Chromium.

    python -m tests.browser.measure_block_table        # writes bench/results/widgets.json

From a click or a key to the frame after the picture has changed: page, kernel and back. Beside it the time that the page's
thread and the kernel computed, which a busy machine does not change. A measurement with the machine's name, and no test.
"""

from __future__ import annotations

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

RESULT = REPOSITORY / "bench" / "results" / "widgets.json"
TARGET_MS = 100
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
    # What the page's own thread works for scripts, styles and layout, whoever else uses the machine.
    counters = page.context.new_cdp_session(page)
    counters.send("Performance.setTimeDomain", {"timeDomain": "threadTicks"})
    counters.send("Performance.enable")

    def worked() -> float:
        metrics = counters.send("Performance.getMetrics")["metrics"]
        parts = ("ScriptDuration", "LayoutDuration", "RecalcStyleDuration")
        return sum(float(each["value"]) for each in metrics if each["name"] in parts)

    requests = page.locator(".abc-request").count()
    rows = []
    for name, (act, what) in CASES.items():
        before = worked()
        times = sorted(page.evaluate(TIMED, [act, what, REPEATS]))
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
    in_kernel = float(notebook.run("kernel").text)
    return {
        "pool": pool,
        "requests": requests,
        "actions": rows,
        "append_kernel_cpu_ms": round(in_kernel, 1),
    }


def main() -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        course = Path(folder) / "course"
        course.mkdir()
        cells = [
            nbformat.v4.new_code_cell(SETUP, id="explorer"),
            nbformat.v4.new_code_cell(IN_KERNEL, id="kernel"),
        ]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(
            nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), course / "explorer.ipynb"
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
