"""What every view shares: a model in Python, its state on the page, and operations that the page may ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Protocol

import anywidget
import traitlets

__all__ = ["Model", "View"]

_FOLDER = Path(__file__).parent


class Model(Protocol):
    """What a view shows. Plain Python: no widget, no browser.

    A method that changes it returns one sentence that says what happened, and raises ValueError, changing nothing,
    for what cannot be done.
    """

    def to_dict(self) -> dict[str, Any]:
        """All that the page draws, as JSON holds it."""

    def describe(self) -> str:
        """The same in words, for whoever does not see the picture."""

    def to_html(self) -> str:
        """The same as a table, for pages in which no widget can run."""


class View(anywidget.AnyWidget):
    """A model on a page.

    A subclass names its folder (`folder="backend_chooser"`), in which `view.js` defines `draw(view)` (with
    what other scripts there are) and `view.css` its looks, and its operations: methods of the model that the page may call. Whatever changes the model ends with
    `refresh`.

    state: what the page draws, `model.to_dict()`. summary: one sentence about the last change, read out by screen
    readers. fault: why the last operation was refused, or "".
    """

    state = traitlets.Dict().tag(sync=True)
    summary = traitlets.Unicode().tag(sync=True)
    fault = traitlets.Unicode().tag(sync=True)
    title = traitlets.Unicode().tag(sync=True)

    operations: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, *, folder: str | None = None, **kwargs: Any) -> None:
        if folder is None:  # traitlets makes a subclass of its own for each widget
            super().__init_subclass__(**kwargs)
            return
        scripts = [_FOLDER / "common.js", *sorted((_FOLDER / folder).glob("*.js"))]
        # One module and no import: a page that is offline, or a notebook in another folder, has no second file.
        text = "\n".join(path.read_text(encoding="utf-8") for path in scripts)
        # A page has one style sheet for all its views: each view's rules hold inside of it and nowhere else.
        own = f"abc-in-{folder.replace('_', '-')}"
        cls._esm = f'{text}\nexport default {{ render: guarded(draw, "{own}") }};\n'
        common = (_FOLDER / "common.css").read_text(encoding="utf-8")
        style = _FOLDER / folder / "view.css"
        cls._css = (
            f"{common}\n.{own} {{\n{style.read_text(encoding='utf-8')}}}\n" if style.exists() else common
        )
        super().__init_subclass__(**kwargs)

    def __init__(self, model: Model, *, title: str, **traits: Any) -> None:
        """traits: a subclass's own, which the page must have from the beginning."""
        super().__init__(state=model.to_dict(), title=title, **traits)
        self.model = model
        self.on_msg(self._receive)

    def do(self, operation: str, *arguments: Any) -> str:
        """Does one of `operations` and returns its sentence, as when it is asked for on the page.

        Raises ValueError for an operation that this view does not have, and where the model refuses.
        """
        if operation not in self.operations:
            raise ValueError(f"operation: expected one of {sorted(self.operations)}, got {operation!r}")
        sentence: str = getattr(self.model, operation)(*arguments)
        self.refresh(sentence)
        return sentence

    def refresh(self, sentence: str = "") -> None:
        """Shows the model as it is now."""
        with self.hold_sync():
            self.state = self.model.to_dict()
            self.fault = ""
            self.summary = sentence

    def _receive(self, _widget: Any, content: Any, _buffers: Any) -> None:
        """An operation from the page. What is refused is said on the page; in a kernel's log nobody would see it."""
        try:
            self.do(content["operation"], *content.get("arguments", []))
        except (ValueError, TypeError, KeyError) as error:
            self.fault = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"

    def describe(self) -> str:
        return self.model.describe()

    def __repr__(self) -> str:
        return self.describe()

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle
        return {**data, "text/plain": self.describe(), "text/html": self.model.to_html()}, metadata
