"""What measurements of a view in JupyterLab share: a notebook of its own in headless Chromium, times, the machine's name."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Page, sync_playwright

from bench.machine import now
from tests.browser.jupyterlab import Server

TARGET_MS = 100


def summary(action: str, times_ms: list[float], page_cpu_s: float) -> dict[str, Any]:
    """One action's row. times_ms: of each repetition. page_cpu_s: what the page's thread computed in all of them."""
    times = sorted(times_ms)
    return {
        "action": action,
        "page_cpu_ms": round(page_cpu_s / len(times) * 1000, 1),
        "least_ms": round(times[0], 1),
        "median_ms": round(statistics.median(times), 1),
        "p90_ms": round(times[int(0.9 * len(times))], 1),
        "largest_ms": round(times[-1], 1),
    }


def page_clock(page: Page) -> Callable[[], float]:
    """A function that gives the seconds that the page's own thread has worked for scripts, styles and layout so far, whoever
    else uses the machine."""
    counters = page.context.new_cdp_session(page)
    counters.send("Performance.setTimeDomain", {"timeDomain": "threadTicks"})
    counters.send("Performance.enable")

    def worked() -> float:
        metrics = counters.send("Performance.getMetrics")["metrics"]
        parts = ("ScriptDuration", "LayoutDuration", "RecalcStyleDuration")
        return sum(float(each["value"]) for each in metrics if each["name"] in parts)

    return worked


def run(
    notebook: str, cells: dict[str, str], measure: Callable[[Page, Server], dict[str, Any]], result: Path
) -> None:
    """Measures in a notebook of these cells (id: text) and writes the result with the machine's name."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        course = Path(folder) / "course"
        course.mkdir()
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        made = [nbformat.v4.new_code_cell(text, id=name) for name, text in cells.items()]
        nbformat.write(
            nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": kernel}), course / notebook
        )
        server = Server(course, Path(folder) / "home")
        try:
            server.wait_until_it_answers()
            browser = playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"]
            )
            found = measure(browser.new_page(viewport={"width": 1440, "height": 900}), server)
            found["environment"] = {
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
    found["target_ms"] = TARGET_MS
    result.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def _processor() -> str:
    """The processor's name as Linux has it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
