"""A drawing of who calls whom: functions as boxes, calls as arrows, laid out by the arrows that are there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from course.deployments import Table

__all__ = ["CallDrawing", "DrawnEdges", "layout"]

Edge = tuple[str, str]


class DrawnEdges(list[Edge]):
    """The edges of a drawing. A list of their own kind, so that an answer which is a drawing can be told from text.

    A drawing lives in the kernel: where a notebook is graded nobody draws, and the list is empty there.
    """


class CallDrawing:
    """A drawing that grows by one arrow at a time.

    nodes: the functions on offer, "file.py:name" -> what each does, or only the names.
    edges: arrows that are there to begin with, (caller, callee) each; their ends are offered too.
    name: what the answer is called in `code()`.

    Raises ValueError where an edge is no pair of texts.
    """

    def __init__(
        self, nodes: Mapping[str, str] | Collection[str], edges: Iterable[Any] = (), *, name: str = "q_path"
    ) -> None:
        meanings = dict(nodes) if isinstance(nodes, Mapping) else dict.fromkeys(nodes, "")
        self.edges = [_edge(number, edge) for number, edge in enumerate(_ordered(edges))]
        self.edges = list(dict.fromkeys(self.edges))
        for end in (end for edge in self.edges for end in edge):
            meanings.setdefault(end, "typed, not from the list")
        self.nodes = meanings
        self.name = name
        self.source: str | None = None

    def add(self, caller: str, callee: str) -> str:
        """Draws an arrow. Raises ValueError for a function that is not on offer, an arrow to itself or a second one."""
        for word, node in (("caller", caller), ("callee", callee)):
            if node not in self.nodes:
                raise ValueError(f"{word}: expected one of the functions on offer, got {node!r}")
        if caller == callee:
            raise ValueError(f"edge: {caller} would call itself; choose another callee")
        if (caller, callee) in self.edges:
            raise ValueError(f"edge: the arrow from {caller} to {callee} is there already")
        self.edges.append((caller, callee))
        self.source = None
        return f"Arrow {len(self.edges)}: {caller} calls {callee}."

    def choose(self, node: str) -> str:
        """The first choice is the caller, the next the callee; the caller once more takes the choice back."""
        if node not in self.nodes:
            raise ValueError(f"node: expected one of the functions on offer, got {node!r}")
        if self.source is None:
            self.source = node
            return f"From {node}. Now choose the function that it calls."
        if self.source == node:
            return self.cancel()
        return self.add(self.source, node)

    def cancel(self) -> str:
        """Takes the choice of a caller back."""
        self.source = None
        return "No caller is chosen."

    def remove(self, number: int) -> str:
        """Takes away an arrow by its number, counted from 1."""
        if type(number) is not int or not 1 <= number <= len(self.edges):
            raise ValueError(f"number: expected 1 to {len(self.edges)}, got {number!r}")
        caller, callee = self.edges.pop(number - 1)
        return f"Taken away: {caller} calls {callee}. {_count(len(self.edges))} left."

    def clear(self) -> str:
        """Takes every arrow away."""
        self.edges.clear()
        self.source = None
        return "The drawing is empty."

    def code(self) -> str:
        """The drawing as the line of Python that is handed in."""
        if not self.edges:
            return f"{self.name} = []"
        lines = [f'    ("{caller}", "{callee}"),' for caller, callee in self.edges]
        return "\n".join([f"{self.name} = [", *lines, "]"])

    def to_dict(self) -> dict[str, Any]:
        rows, routes = layout(self.edges)
        return {
            "nodes": [[node, meaning] for node, meaning in self.nodes.items()],
            "edges": [list(edge) for edge in self.edges],
            "rows": rows,
            "routes": routes,
            "source": self.source,
            "code": self.code(),
        }

    def describe(self) -> str:
        if not self.edges:
            return f"Nothing is drawn yet.\n{self._offer()!r}"
        lines = [
            f"{number}. {caller} calls {callee}" for number, (caller, callee) in enumerate(self.edges, 1)
        ]
        return "\n".join([f"A drawing with {_count(len(self.edges))}:", *lines])

    def to_html(self) -> str:
        rows = [[caller, callee] for caller, callee in self.edges]
        drawn = Table("Your drawing", ["caller", "callee"], rows)._repr_html_() if rows else ""
        return f"{drawn}{self._offer()._repr_html_()}"

    def _offer(self) -> Table:
        return Table("Functions to draw with", ["function", "what it does"], list(self.nodes.items()))


def layout(edges: Sequence[Edge]) -> tuple[list[list[str]], list[list[str]]]:
    """(rows, routes): functions in rows from top to bottom, each below all that call it where arrows make no circle.

    An arrow that passes a row has a place of its own there, "via ...". A route is an arrow's way from its caller to its
    callee over those places.
    """
    order = _callers_first(edges)
    number_of = {node: number for number, node in enumerate(order)}
    depth = dict.fromkeys(order, 0)
    for node in order:
        for caller, callee in edges:
            if caller == node and number_of[callee] > number_of[caller]:  # an arrow back up moves nothing
                depth[callee] = max(depth[callee], depth[caller] + 1)
    rows: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for node in order:
        rows[depth[node]].append(node)
    routes = []
    for number, (caller, callee) in enumerate(edges, 1):
        upper, lower = sorted((caller, callee), key=depth.__getitem__)
        passed = {row: f"via {number}.{row}" for row in range(depth[upper] + 1, depth[lower])}
        for row, place in passed.items():
            rows[row].append(place)
        down = [upper, *passed.values(), lower]
        routes.append(down if upper == caller else down[::-1])
    _sort_rows(rows, routes)
    return rows, routes


def _sort_rows(rows: list[list[str]], routes: list[list[str]]) -> None:
    """Within its row each goes below those that it hangs from."""
    pairs = {pair for route in routes for pair in (*pairwise(route), *pairwise(route[::-1]))}
    across: dict[str, float] = {}
    for row in rows:
        place = {}
        for node in row:
            above = [across[one] for one, other in pairs if other == node and one in across]
            place[node] = sum(above) / len(above) if above else 0.5
        row.sort(key=place.__getitem__)
        across |= {node: (index + 0.5) / len(row) for index, node in enumerate(row)}


def _callers_first(edges: Sequence[Edge]) -> list[str]:
    """Every function before those that it calls, as far as arrows make no circle."""
    callees: dict[str, list[str]] = {}
    for caller, callee in edges:
        callees.setdefault(caller, []).append(callee)
        callees.setdefault(callee, [])
    finished: list[str] = []
    seen: set[str] = set()

    def visit(node: str) -> None:
        seen.add(node)
        for callee in callees[node][::-1]:
            if callee not in seen:
                visit(callee)
        finished.append(node)

    called = {callee for _, callee in edges}
    # Those that nobody calls first; what is left then are circles that nothing leads into.
    for node in sorted(callees, key=called.__contains__):
        if node not in seen:
            visit(node)
    return finished[::-1]


def _ordered(edges: Iterable[Any]) -> list[Any]:
    """Edges as a list; a set of them in an order that is always the same."""
    if isinstance(edges, str | Mapping) or not isinstance(edges, Iterable):
        raise ValueError(f"edges: expected a list of pairs (caller, callee), got a {type(edges).__name__}")
    return sorted(edges, key=repr) if isinstance(edges, set | frozenset) else list(edges)


def _edge(number: int, edge: Any) -> Edge:
    if not isinstance(edge, list | tuple) or len(edge) != 2 or not all(isinstance(end, str) for end in edge):
        raise ValueError(f"edges[{number}]: expected a pair of texts (caller, callee), got {edge!r}")
    caller, callee = edge
    return caller, callee


def _count(number: int) -> str:
    return f"{number} arrow{'' if number == 1 else 's'}"
