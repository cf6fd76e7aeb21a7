"""The picture: what share of the roof each case reaches, and where the cases lie under it."""

import io
from typing import Any

from bench import targets

LABELS = {"ours": "ours", "peer": "best paged peer", "dense": "torch SDPA, dense"}
STYLES: dict[str, Any] = {
    "ours": {"color": "#0b6e4f", "marker": "o"},
    "peer": {"color": "#c44536", "marker": "D"},
    "dense": {"color": "#7a7a7a", "marker": "|", "markeredgewidth": 2},
}


def points(result: dict[str, Any]) -> list[dict[str, Any]]:
    """For each case its floor in seconds, its FLOPs a byte, and the time in seconds of ours, the best peer and dense."""
    flop_per_s = result["ceilings"]["matmul_flop_per_s"]
    bytes_per_s = targets.data_sheet_bytes_per_s(result)
    found = []
    for row in result["cases"]:
        times = {}
        standing = {"ours": targets.our_call(row), "peer": targets.best_peer(row, result["contenders"])}
        for who, name in standing.items():
            if name:
                times[who] = row["results"][name]["us"] * 1e-6
        for name, one in row["results"].items():
            if not result["contenders"][name]["paged"]:
                times["dense"] = one["us"] * 1e-6
        floor = max(row["bytes"] / bytes_per_s, row["flops"] / flop_per_s)
        found.append(
            {
                "case": row["name"],
                "flops": row["flops"],
                "intensity": row["flops"] / row["bytes"],
                "floor": floor,
            }
            | {"times": times}
        )
    return found


def as_svg(result: dict[str, Any]) -> bytes:
    """The same bytes for the same result and the same version of matplotlib."""
    import matplotlib

    settings: Any = {
        "svg.hashsalt": "bench",
        "svg.fonttype": "none",
        "font.size": 9,
        "font.family": "DejaVu Sans",
    }
    file = io.BytesIO()
    with matplotlib.rc_context(settings):
        draw(result).savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def draw(result: dict[str, Any]) -> Any:
    """A matplotlib figure."""
    from matplotlib.figure import Figure

    cases = points(result)
    figure = Figure(figsize=(11, 1.6 + 0.27 * len(cases)), layout="constrained")
    shares, roof = figure.subplots(1, 2, width_ratios=[3, 2])
    _draw_shares(shares, cases)
    _draw_roof(roof, cases, result["ceilings"]["matmul_flop_per_s"], targets.data_sheet_bytes_per_s(result))
    return figure


def _draw_shares(axes: Any, cases: list[dict[str, Any]]) -> None:
    """One line a case: the floor over the time of each."""
    axes.set_title("Share of the roof: least possible time / time", loc="left")
    for who, label in LABELS.items():
        at = [(one["floor"] / one["times"][who], row) for row, one in enumerate(cases) if who in one["times"]]
        if at:
            axes.plot(*zip(*at, strict=True), linestyle="", label=label, markersize=5, **STYLES[who])
    axes.set_yticks(range(len(cases)), [one["case"] for one in cases])
    axes.set_ylim(len(cases) - 0.4, -0.6)
    axes.set_xlim(0, 1.05)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", framealpha=0.95)


def _draw_roof(axes: Any, cases: list[dict[str, Any]], flop_per_s: float, bytes_per_s: float) -> None:
    """FLOPs a second over FLOPs a byte, both on logarithmic scales."""
    axes.set_title("Roofline", loc="left")
    ridge = flop_per_s / bytes_per_s
    left, right = 0.8, 3e4
    roof = [left * bytes_per_s / 1e12, flop_per_s / 1e12, flop_per_s / 1e12]
    axes.plot([left, ridge, right], roof, color="black", linewidth=1)
    axes.text(3, 8, f"{bytes_per_s / 1e12:.3g} TB/s, data sheet", fontsize=8)
    axes.text(
        right,
        flop_per_s / 1e12 * 1.1,
        f"{flop_per_s / 1e12:.0f} TFLOP/s, matrix product",
        ha="right",
        fontsize=8,
    )
    for who, label in LABELS.items():
        at = [
            (one["intensity"], one["flops"] / one["times"][who] / 1e12)
            for one in cases
            if who in one["times"]
        ]
        if at:
            axes.plot(*zip(*at, strict=True), linestyle="", label=label, markersize=4, **STYLES[who])
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(1, 1500))
    axes.set_xlabel("FLOP per byte that has to move")
    axes.set_ylabel("TFLOP/s")
    axes.grid(alpha=0.3)
