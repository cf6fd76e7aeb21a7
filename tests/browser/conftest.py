"""One JupyterLab and one Chromium for all browser tests, on a copy of the course such as a learner gets."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import nbformat
import pytest

from autograder.build import write_instructor_notebook
from course.start import start
from tests.browser.answers import Answers, read_answers
from tests.browser.jupyterlab import REPOSITORY, Notebook, Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

Screenshot = Callable[["Page", str], None]
LESSON = "01_warm_up"


@pytest.fixture(scope="session")
def course_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is in the repository, after `course start`: work/ for the learner, source/ for the instructor."""
    folder = tmp_path_factory.mktemp("course")
    shutil.copy(REPOSITORY / "nbgrader_config.py", folder)
    shutil.copytree(
        REPOSITORY / "release", folder / "release", ignore=shutil.ignore_patterns(".ipynb_checkpoints")
    )
    (folder / "source").mkdir()
    shutil.copy(REPOSITORY / "source" / f"{LESSON}.py", folder / "source")
    write_instructor_notebook(folder, LESSON)
    start(folder)
    return folder


@pytest.fixture(scope="session")
def server(course_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A JupyterLab that runs in `course_folder`."""
    pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e .[dev]")
    started = Server(course_folder, tmp_path_factory.mktemp("home"))
    try:
        started.wait_until_it_answers()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Headless, and unable to find any host but this one."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e .[dev]")
    with api.sync_playwright() as playwright:
        names = ("chromium", "chromium-browser", "google-chrome")
        installed = next(filter(None, map(shutil.which, names)), None) or playwright.chromium.executable_path
        if not Path(installed).exists():
            pytest.skip("needs Chromium: apt install chromium, or playwright install chromium")
        browser = playwright.chromium.launch(
            executable_path=installed,
            args=[
                "--no-sandbox",
                "--disable-dev-shm-usage",
                "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def strangers() -> list[str]:
    """Addresses on other hosts that a page asked for. The course works offline, so there should be none."""
    return []


@pytest.fixture(autouse=True)
def no_other_host(strangers: list[str]) -> Iterator[None]:
    yield
    seen = sorted(set(strangers))
    strangers.clear()
    assert not seen, f"asked another host for {seen}"


@pytest.fixture(scope="session")
def context(chromium: Browser, strangers: list[str]) -> Iterator[BrowserContext]:
    """Pages of one person, at the size of a usual laptop."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(60_000)  # a machine may be busy with other tests

    def note(address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname != "127.0.0.1":
            strangers.append(address)

    context.on("request", lambda request: note(request.url))
    context.on("page", lambda page: page.on("websocket", lambda socket: note(socket.url)))
    yield context
    context.close()


@pytest.fixture(scope="session")
def answers(course_folder: Path) -> Answers:
    return read_answers(course_folder, LESSON)


@pytest.fixture(scope="session")
def lesson(server: Server, context: BrowserContext) -> Notebook:
    """The learner's copy of lesson 1, open in JupyterLab, with everything above the first exercise run.

    Tests share it: each fills in or types what it needs, and leaves no cell behind.
    """
    notebook = Notebook(context.new_page(), server, f"work/{LESSON}/{LESSON}.ipynb")
    notebook.run_before("q1-verdicts-code")
    return notebook


@pytest.fixture(scope="session")
def sheet(server: Server, context: BrowserContext, course_folder: Path) -> Notebook:
    """A notebook with lesson 1's first cell, run, for what is drawn below it.

    In the lesson itself each click, each picture and each look of axe waits for nine thousand elements.
    """
    released = nbformat.read(course_folder / "release" / LESSON / f"{LESSON}.ipynb", as_version=4)
    released.cells = [cell for cell in released.cells if cell.id == "setup"]
    released.cells.append(nbformat.v4.new_markdown_cell("The end.", id="end"))
    nbformat.write(released, course_folder / "work" / "sheet.ipynb")
    notebook = Notebook(context.new_page(), server, "work/sheet.ipynb")
    assert notebook.run("setup").errors == []
    return notebook


@pytest.fixture(scope="session")
def lab(context: BrowserContext) -> Page:
    """A page for notebooks that are opened one after the other: JupyterLab takes longer to load than they do."""
    return context.new_page()


@pytest.fixture(scope="session")
def screenshot() -> Screenshot:
    """With COURSE_SCREENSHOTS=1, keeps a picture of the page in build/screenshots/, to be looked at by a person."""
    folder = REPOSITORY / "build" / "screenshots"
    wanted = os.environ.get("COURSE_SCREENSHOTS") == "1"
    if wanted:
        folder.mkdir(parents=True, exist_ok=True)

    def take(page: Page, name: str) -> None:
        if wanted:
            page.screenshot(path=folder / f"{name}.png", animations="disabled")

    return take
