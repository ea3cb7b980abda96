"""One look for every figure of the book: its style and colours, tables, and boxes with arrows.

Figures are vector graphics on a transparent ground, with their text as paths: they look the same
on every machine. The site's style sheet inverts their lightness, not their hue, on its dark theme.
"""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

__all__ = ["arrow", "box", "canvas", "first_look", "table", "use_style"]

# Okabe and Ito's palette: told apart under the common colour blindnesses, and on white and dark
BLUE, ORANGE, GREEN, PURPLE, RED, SKY, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#D55E00",
    "#56B4E9",
    "#767676",
)

ORDER = (BLUE, ORANGE, GREEN, PURPLE, RED, SKY, GREY)

# the same scheme has the same colour and marker in every chapter
SCHEME = {
    "PAUS": (PURPLE, "D"),
    "optimum": (GREEN, "^"),
    "IPM": (BLUE, "o"),
    "DNN": (ORANGE, "s"),
    "size-free": (RED, "P"),
    "Max": (SKY, "v"),
    "Rand": (GREY, "x"),
}

# as tables hold them: with thousands, an interval, a unit, or missing
NUMBER = re.compile(r"([-+]?[\d,.]+(e[-+]?\d+)?( ± [\d.]+)? ?%?|nan|–|)")


def use_style() -> None:
    """Sets Matplotlib's defaults for a figure at the width of the book's text."""
    plt.rcParams.update(
        {
            "figure.figsize": (7.0, 3.8),
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "figure.facecolor": "none",
            "savefig.facecolor": "none",
            "axes.facecolor": "none",
            "font.size": 11,
            "axes.prop_cycle": cycler(color=ORDER),
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.color": "#dddddd",
            "grid.linewidth": 0.7,
            "lines.linewidth": 1.8,
            "lines.markersize": 5,
            "legend.frameon": False,
            "svg.fonttype": "path",
            "svg.hashsalt": "nomalib",  # the same figure is the same file
        }
    )
    if "ipykernel" in sys.modules:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table, for IPython.display.Markdown. Columns of numbers are aligned on the right.

    >>> print(table(["user", "rate"], [["first", "12.5 %"], ["any |g|", "3.1 %"]]))
    | user | rate |
    | --- | ---: |
    | first | 12.5 % |
    | any \\|g\\| | 3.1 % |
    """
    head, rows = list(head), [[cell.replace("|", r"\|") for cell in row] for row in rows]
    numeric = [all(map(NUMBER.fullmatch, column)) for column in zip(*rows, strict=True)]
    rule = ["---:" if right else "---" for right in numeric or [False] * len(head)]
    lines = [head, rule, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def first_look(rows: Iterable[Mapping[str, Any]], axes: Sequence[str], metric: str) -> Figure:
    """A panel for each column whose name holds `metric`, over the first axis.

    The other axes tell the lines apart; without an axis the rows are counted. Where no name holds
    `metric`, the numbers are shown that differ between the rows, or all.

    Args:
        rows: of `records.table`, one a run.
        axes: columns that the runs were made for.
        metric: part of a column's name; "" is in all.

    >>> rows = [{"seed": seed, "rate": 2.5 * seed} for seed in (0, 1)]
    >>> [panel.get_title() for panel in first_look(rows, ["seed"], "rate").axes]
    ['rate']
    """
    over, *others = axes or ["run"]
    rows = [{"run": n} | dict(row) for n, row in enumerate(rows)]
    numbers = [name for name, value in rows[0].items() if type(value) in (int, float)]
    numbers = [name for name in numbers if name not in ("run", *axes)]
    shown = [name for name in numbers if metric in name]
    shown = shown or [name for name in numbers if len({row[name] for row in rows}) > 1] or numbers
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        lines.setdefault(", ".join(f"{name} = {row[name]}" for name in others), []).append(row)
    use_style()
    height, width = max(1, -(-len(shown) // 3)), min(3, max(1, len(shown)))
    fig, panels = plt.subplots(height, width, squeeze=False)
    fig.set_size_inches(3.2 * width, 2.6 * height + 0.5)
    for panel, name in zip(panels.flat, shown, strict=False):
        for label, found in lines.items():
            points = sorted((row[over], row[name]) for row in found)
            at = [x if isinstance(x, (int, float)) else str(x) for x, _ in points]
            panel.plot(at, [y for _, y in points], "o-", label=label)
        panel.set(title=name, xlabel=over)
    for panel in panels.flat[len(shown) :]:
        panel.remove()
    if len(lines) > 1 and shown:
        fig.legend(*panels.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig


def canvas(ax: Axes, width: float, height: float) -> None:
    """Makes `ax` a sheet to draw on, `width` by `height` units, without axes."""
    ax.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    ax.axis("off")


def box(
    ax: Axes,
    centre: tuple[float, float],
    text: str,
    size: tuple[float, float] = (2.0, 0.8),
    color: str = GREY,
    filled: float = 0.15,
) -> FancyBboxPatch:
    """A rounded box with its text; `filled` is how strongly its colour fills it, 0 to 1."""
    x, y = centre[0] - size[0] / 2, centre[1] - size[1] / 2
    patch = FancyBboxPatch(
        (x, y),
        *size,
        boxstyle="round,pad=0,rounding_size=0.12",
        facecolor=(color, filled),
        edgecolor=color,
        linewidth=1.3,
    )
    ax.add_patch(patch)
    ax.text(*centre, text, ha="center", va="center", fontsize=10)
    return patch


def arrow(
    ax: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    color: str = GREY,
    bend: float = 0.0,
) -> FancyArrowPatch:
    """An arrow from `start` to `end`; `bend` curves it."""
    patch = FancyArrowPatch(
        start,
        end,
        arrowstyle="-|>",
        mutation_scale=12,
        connectionstyle=f"arc3,rad={bend}",
        color=color,
        linewidth=1.5,
        shrinkA=0,
        shrinkB=0,
    )
    ax.add_patch(patch)
    return patch
