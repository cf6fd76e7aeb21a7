"""Who computes attention for a deployment: a form over `course.vllm.rules`."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from html import escape
from typing import Any

from course.deployments import CANDIDATES, SCENARIOS, Table
from course.vllm.rules import NONE, Deployment, explain, place, select, table

__all__ = ["Chooser"]

GPUS = {
    (7, 5): "T4",
    (8, 0): "A100",
    (8, 6): "A10",
    (8, 9): "L4, RTX 4090",
    (9, 0): "H100, H200",
    (10, 0): "B200",
    (12, 0): "RTX 5090",
}
# What a person changes, with the values offered.
HEAD_SIZES = (16, 32, 64, 72, 80, 96, 112, 128, 160, 192, 224, 256, 512, 576)
BLOCK_SIZES = (None, 1, 8, 16, 32, 48, 64, 128, 256)
FEATURES = ("use_mla", "has_sink", "use_sparse", "use_mm_prefix", "use_non_causal", "use_batch_invariant")


class Chooser:
    """A deployment that can be changed, and what vLLM 0.22.1 says of it.

    deployment: the `course.vllm.rules.Deployment` in hand. guess_first: after each change the verdicts stay hidden
    until somebody has said who will be chosen.
    """

    def __init__(self, deployment: Deployment | None = None, *, guess_first: bool = False) -> None:
        self.deployment = deployment or Deployment((9, 0), "bfloat16", 128, num_heads=32)
        self.guess_first = guess_first
        self._first = self.deployment
        self._shown = True  # where it begins there is nothing to guess

    def change(self, field: str, value: Any) -> str:
        """Sets one field of the deployment. Raises ValueError for a field or value that the rules do not cover."""
        names = [each.name for each in fields(Deployment)]
        if field not in names:
            raise ValueError(f"field: expected one of {names}, got {field!r}")
        if field == "capability" and isinstance(value, list):  # as JSON has it
            value = tuple(value)
        before = select(self.deployment)
        self.deployment = replace(self.deployment, **{field: value})
        if self._hide():
            return f"{field} is {value}. Who will be chosen?"
        after = select(self.deployment)
        change = "as before" if after == before else f"it was {before}"
        return f"{field} is {value}: vLLM chooses {after}, {change}."

    def load(self, name: str) -> str:
        """Takes one of question 1's deployments."""
        if name not in SCENARIOS:
            raise ValueError(f"name: expected one of {list(SCENARIOS)}, got {name!r}")
        self.deployment = SCENARIOS[name].deployment
        if self._hide():
            return f"{name}: {SCENARIOS[name].sentence} Who will be chosen?"
        return f"{name}: {SCENARIOS[name].sentence} vLLM chooses {select(self.deployment)}."

    def reset(self) -> str:
        """Back to the deployment that it began with."""
        self.deployment = self._first
        self._shown = True
        return f"Back at the beginning: vLLM chooses {select(self.deployment)}."

    def guess(self, backend: str) -> str:
        """Says who will be chosen, and shows the verdicts."""
        if backend not in CANDIDATES:
            raise ValueError(f"backend: expected one of {list(CANDIDATES)}, got {backend!r}")
        self._shown = True
        chosen = select(self.deployment)
        return (
            f"Right: vLLM chooses {chosen}."
            if backend == chosen
            else f"You said {backend}: vLLM chooses {chosen}."
        )

    def set_guess_first(self, wanted: bool) -> str:
        """Whether verdicts stay hidden after a change until there is a guess."""
        if type(wanted) is not bool:
            raise ValueError(f"wanted: expected True or False, got {wanted!r}")
        self.guess_first = wanted
        self._shown = self._shown or not wanted
        return (
            "From the next change on, guess first." if wanted else f"vLLM chooses {select(self.deployment)}."
        )

    def _hide(self) -> bool:
        """After a change: whether its verdicts are hidden."""
        self._shown = not self.guess_first
        return self.guess_first

    def answers(self) -> list[dict[str, Any]]:
        """Each backend that vLLM asks, in its order: name, verdict, reasons, and where each reason stands in vLLM."""
        chosen = select(self.deployment)
        rows = []
        for order, (backend, reasons) in enumerate(explain(self.deployment).items(), 1):
            verdict = "chosen" if backend == chosen else "refuses" if reasons else "valid, comes later"
            places = [place(backend, _rule(reason)) for reason in reasons]
            rows.append(
                {"order": order, "backend": backend, "verdict": verdict, "reasons": reasons, "places": places}
            )
        return rows

    def to_dict(self) -> dict[str, Any]:
        covered = table()["covered"]
        capabilities = [
            [key, f"{key[0]}.{key[1]} {GPUS.get(tuple(key), '')}".strip()] for key in covered["capability"]
        ]
        return {
            "deployment": {**asdict(self.deployment), "capability": list(self.deployment.capability)},
            # While there is something to guess, the answer does not travel to the page.
            "chosen": select(self.deployment) if self._shown else None,
            "answers": self.answers() if self._shown else [],
            "guess_first": self.guess_first,
            "candidates": list(CANDIDATES),
            "offered": {
                "capability": capabilities,
                "dtype": list(covered["dtype"]),
                "head_size": sorted({*HEAD_SIZES, self.deployment.head_size}),
                "kv_cache_dtype": [each for each in covered["kv_cache_dtype"] if each is not None],
                "block_size": list(BLOCK_SIZES),
            },
            "features": list(FEATURES),
            "scenarios": list(SCENARIOS),
        }

    def describe(self) -> str:
        lines = [f"{each.name}={getattr(self.deployment, each.name)!r}" for each in fields(Deployment)]
        if not self._shown:
            question = 'Who will be chosen? view.do("guess", NAME) shows it.'
            return f"Deployment({', '.join(lines)})\n{question}"
        return f"Deployment({', '.join(lines)})\nvLLM 0.22.1 chooses {select(self.deployment)}\n{self._table()!r}"

    def to_html(self) -> str:
        return f"<p>vLLM 0.22.1 chooses <strong>{escape(select(self.deployment))}</strong>.</p>{self._table()._repr_html_()}"

    def _table(self) -> Table:
        rows = [
            [row["backend"], row["verdict"], "; ".join(row["reasons"]) or "none"] for row in self.answers()
        ]
        none = "" if select(self.deployment) != NONE else "; nobody is left"
        return Table(
            f"Whom vLLM asks, in its order{none}", ["backend", "verdict", "reasons against it"], rows
        )


def _rule(reason: str) -> str:
    """The rule that gives a reason. A sentence that no rule has for itself is about a combination of features."""
    for rule in table()["rules"]:
        if reason in (rule.get("reason"), rule.get("reason_if_not_wanted")):
            return str(rule["rule"])
    return "supports_attn_type" if reason.startswith("attention type") else "supports_combination"
