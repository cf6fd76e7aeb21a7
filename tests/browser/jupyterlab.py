"""JupyterLab for tests: a server of its own, and a notebook in it as a person uses it."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course.vllm import source as vllm_source

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

REPOSITORY = Path(__file__).resolve().parents[2]

SERVER_SECONDS = 60  # until the server answers
CELL_SECONDS = 60  # for one cell
NOTEBOOK_SECONDS = 180  # for all cells of a lesson


class Server:
    """`python -m jupyterlab` in a course folder, as `make lab` starts it, with nothing of this user's home."""

    def __init__(self, course: Path, home: Path) -> None:
        self.course = course
        self.token = secrets.token_hex(16)
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = home / "server.log"
        _write_settings(
            home / "settings" / "@jupyterlab",
            {
                # Else Lab's first question is whether it may ask its website for news.
                "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
                # A save by the clock and one by a test's button, at once and on a busy machine, take each other for
                # somebody else's.
                "docmanager-extension/plugin": {"autosave": False},
            },
        )
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
        command += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0"]
        command += [f"--IdentityProvider.token={self.token}", "--LabApp.expose_app_in_browser=True"]
        # Notebook 7 is served by the same server, at /notebooks/.
        command += ["--JupyterNotebookApp.expose_app_in_browser=True"]
        command += [
            f"--LabApp.user_settings_dir={home / 'settings'}",
            f"--LabApp.workspaces_dir={home / 'workspaces'}",
        ]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, cwd=course, env=_environment(home), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait_until_it_answers(self) -> None:
        """Raises RuntimeError with the end of the server's log when it ends first or takes too long."""
        deadline = time.monotonic() + SERVER_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.url}/api/status?token={self.token}", timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        state = "ended" if self._process.poll() is not None else f"does not answer after {SERVER_SECONDS} s"
        raise RuntimeError(f"JupyterLab {state}; its log ends with:\n{self._log.read_text()[-3000:]}")

    def stop(self) -> None:
        """Ends the server, which ends its kernels."""
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def address(self, path: str) -> str:
        """Where the browser finds `path`, with the token."""
        return f"{self.url}/{path}{'&' if '?' in path else '?'}token={self.token}"


def _write_settings(folder: Path, settings: dict[str, dict[str, Any]]) -> None:
    for name, values in settings.items():
        path = folder / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _environment(home: Path) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JUPYTER", "IPYTHON", "XDG_"))
    }
    return kept | {
        "HOME": str(home),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        # nbgrader starts its database tool by name.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        # The checkout under test, whatever is installed; and without what tests/without leaves out.
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests" / "without")]),
        # Brought once for all tests, not into each new home.
        vllm_source.CACHE_VARIABLE: str(vllm_source.cache_folder()),
        # As the Makefile has it.
        "OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", "1"),
    }


@dataclass
class Outputs:
    """What a cell shows: text as it is printed, warnings (stderr), errors, and the kinds of rich output."""

    text: str = ""
    warnings: str = ""
    errors: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)


_PANEL = """(path => [...window.jupyterapp.shell.widgets('main')].find(w => w.context && w.context.path === path))"""
_CELL = f"""((path, id) => ({_PANEL})(path).content.widgets.find(w => w.model.id === id))"""


class Notebook:
    """A notebook that is open in JupyterLab; cells are named by their ids."""

    def __init__(self, page: Page, server: Server, path: str) -> None:
        """Opens `path`, at the address that `make lab` opens or in the JupyterLab that the page shows, and waits until its
        kernel answers."""
        self.page, self.path = page, path
        if page.url.startswith(server.url):
            page.evaluate(
                "path => window.jupyterapp.commands.execute('docmanager:open', {path}).then(() => null)", path
            )
        else:
            page.goto(server.address(f"lab/tree/{path}"))
        page.wait_for_function(f"path => window.jupyterapp && ({_PANEL})(path)", arg=path)
        # Kernel info comes last. Without waiting for it, a run may meet the dialog that asks for a kernel.
        page.evaluate(
            f"""async path => {{
                const panel = ({_PANEL})(path);
                await panel.context.ready;
                await panel.sessionContext.ready;
                await panel.sessionContext.session.kernel.info;
            }}""",
            path,
        )

    def close(self) -> None:
        """Ends its kernel and takes it off the page, with no question whether to save it."""
        self.page.evaluate(
            f"""async path => {{
                const panel = ({_PANEL})(path);
                await panel.sessionContext.shutdown();
                panel.dispose();
            }}""",
            self.path,
        )

    def ids(self) -> list[str]:
        """The ids of all cells, in order."""
        ids: list[str] = self.page.evaluate(
            f"path => ({_PANEL})(path).content.widgets.map(w => w.model.id)", self.path
        )
        return ids

    def cell(self, cell_id: str) -> Locator:
        """The cell on the page, scrolled to."""
        self.page.bring_to_front()  # a page behind another draws no frame, and a click waits for two
        self.page.evaluate(
            f"""([path, id]) => {{
                const cell = ({_CELL})(path, id);
                cell.node.dataset.cell = id;
                cell.node.scrollIntoView({{block: 'start'}});
            }}""",
            [self.path, cell_id],
        )
        return self.page.locator(f'.jp-Cell[data-cell="{cell_id}"]')

    def output(self, cell_id: str) -> Locator:
        """What the cell shows below its text, scrolled to."""
        area = self.cell(cell_id).locator(".jp-Cell-outputArea")
        area.evaluate("area => area.scrollIntoView({block: 'nearest'})")
        return area

    def type(self, cell_id: str, text: str) -> None:
        """Replaces a cell's text through its editor, as somebody who pastes."""
        self.cell(cell_id).locator(".cm-content").click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(text)
        assert self.source(cell_id) == text

    def source(self, cell_id: str) -> str:
        text: str = self.page.evaluate(
            f"([path, id]) => ({_CELL})(path, id).model.sharedModel.source", [self.path, cell_id]
        )
        return text

    def fill_in(self, texts: dict[str, str]) -> None:
        """Replaces the texts of many cells at once."""
        self.page.bring_to_front()
        self.page.evaluate(
            f"([path, texts]) => Object.entries(texts).forEach(([id, text]) => ({_CELL})(path, id).model.sharedModel.setSource(text))",
            [self.path, texts],
        )

    def run(self, cell_id: str) -> Outputs:
        """Runs a cell with Shift+Enter and returns what it shows when it is done."""
        before = self._execution_count(cell_id)
        self.cell(cell_id).locator(".cm-content").click()
        self.page.keyboard.press("Shift+Enter")
        self.page.wait_for_function(
            f"""([path, id, before]) => {{
                const model = ({_CELL})(path, id).model;
                return model.executionState === 'idle' && model.executionCount !== before && model.executionCount !== null;
            }}""",
            arg=[self.path, cell_id, before],
            timeout=CELL_SECONDS * 1000,
        )
        return self.outputs(cell_id)

    def run_before(self, cell_id: str) -> None:
        """Runs all cells above this one."""
        self.cell(cell_id).locator(".cm-content").click()
        self._command("notebook:run-all-above")

    def restart_and_run_all(self) -> None:
        """Kernel, Restart Kernel and Run All Cells, and yes to its question."""
        self.page.get_by_role("menuitem", name="Kernel", exact=True).click()
        self.page.get_by_role("menuitem", name="Restart Kernel and Run All Cells…").click()
        self.page.get_by_role("button", name="Confirm Kernel Restart").click()
        code = self.page.evaluate(
            f"path => ({_PANEL})(path).content.widgets.filter(w => w.model.type === 'code').map(w => w.model.id)",
            self.path,
        )
        self.page.wait_for_function(
            f"""([path, ids]) => ids.every((id, index) => {{
                const model = ({_CELL})(path, id).model;
                return model.executionState === 'idle' && model.executionCount === index + 1;
            }})""",
            arg=[self.path, code],
            timeout=NOTEBOOK_SECONDS * 1000,
        )

    def outputs(self, cell_id: str) -> Outputs:
        raw: list[dict[str, Any]] = self.page.evaluate(
            f"([path, id]) => ({_CELL})(path, id).model.sharedModel.toJSON().outputs || []",
            [self.path, cell_id],
        )
        shown = Outputs()
        for output in raw:
            if output["output_type"] == "stream":
                text = "".join(output["text"])
                if output["name"] == "stderr":
                    shown.warnings += text
                else:
                    shown.text += text
            elif output["output_type"] == "error":
                shown.errors.append("\n".join(output["traceback"]))
            else:
                shown.kinds += output["data"]
        return shown

    def shown_text(self, cell_id: str) -> str:
        """A cell's output as the page shows it."""
        return self.output(cell_id).inner_text().strip()

    def faults_of_images(self, cell_id: str) -> list[str]:
        """What is wrong with the pictures that a cell shows: none there, not loaded, without words, cut."""
        faults: list[str] = self.output(cell_id).evaluate(
            """async area => {
                const images = [...area.querySelectorAll('img')], faults = [];
                if (!images.length) faults.push('no picture');
                for (const image of images) {
                    await image.decode().catch(() => faults.push('not loaded'));
                    // Lab itself writes "Image" where there is no text.
                    if (['', 'Image'].includes(image.alt.trim())) faults.push('no alternative text');
                    if (image.getBoundingClientRect().right > area.getBoundingClientRect().right) faults.push('cut');
                }
                return faults;
            }"""
        )
        return faults

    def overflowing(self) -> list[str]:
        """Cells with an output that is wider than the page has room for."""
        wide: list[str] = self.page.evaluate(
            f"""path => ({_PANEL})(path).content.widgets.filter(w =>
                [...w.node.querySelectorAll('.jp-OutputArea-output')].some(o => o.scrollWidth > o.clientWidth + 1)
            ).map(w => w.model.id)""",
            self.path,
        )
        return wide

    def insert_below(self, cell_id: str, text: str) -> str:
        """A new code cell with `text`; returns its id."""
        before = self.ids()
        self.cell(cell_id).locator(".cm-content").click()
        self._command("notebook:insert-cell-below")
        new = next(name for name in self.ids() if name not in before)
        self.type(new, text)
        return new

    def delete(self, cell_id: str) -> None:
        self.cell(cell_id).locator(".cm-content").click()
        self._command("notebook:delete-cell")

    def validate(self) -> str:
        """Presses nbgrader's Validate button and returns what its dialog says; the dialog stays open."""
        self.page.get_by_role("button", name="Validate", exact=True).click()
        dialog = self.page.locator(".jp-Dialog")
        dialog.wait_for(timeout=NOTEBOOK_SECONDS * 1000)
        return dialog.inner_text()

    def close_dialog(self) -> None:
        self.page.locator(".jp-Dialog").get_by_role("button", name="Ok").click()
        self.page.locator(".jp-Dialog").wait_for(state="detached")

    def use_theme(self, theme: str) -> None:
        """Such as "JupyterLab Dark"."""
        self._command("apputils:change-theme", {"theme": theme})
        self.page.wait_for_function("theme => document.body.dataset.jpThemeName === theme", arg=theme)

    def _execution_count(self, cell_id: str) -> int | None:
        count: int | None = self.page.evaluate(
            f"([path, id]) => ({_CELL})(path, id).model.executionCount", [self.path, cell_id]
        )
        return count

    def _command(self, name: str, arguments: dict[str, Any] | None = None) -> None:
        self.page.evaluate(
            "([name, args]) => window.jupyterapp.commands.execute(name, args).then(() => null)",
            [name, arguments or {}],
        )
