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

__all__ = ["arrow", "box", "canvas", "device_table", "first_look", "table", "use_style"]

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
    "equal totals": ("#000000", "*"),
    "Max": (SKY, "v"),
    "Rand": (GREY, "x"),
}

# of what `first_look` shows
UNITS = {"sum_rate": " [bps/Hz]", "time": " [s]", "violation": " [share of the pairs]"}

# as tables hold them: with thousands, an interval, a unit, or missing
NUMBER = re.compile(r"([-+]?[\d,.]+(e[-+]?\d+)?( ± [\d.]+)? ?%?|nan|–|)")


def use_style() -> None:
    """Sets Matplotlib's defaults for a figure at the width of the book's text.

    Nothing stays of a user's matplotlibrc. In a notebook, figures appear below their cell also
    where MPLBACKEND names another backend.
    """
    plt.rcdefaults()
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
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        if shell := get_ipython():
            shell.run_line_magic("matplotlib", "inline")
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


def device_table(rows: Iterable[Mapping[str, Any]], times: Iterable[float], what: str) -> str:
    """Times per draw [µs] of one thing in Markdown, a column for each device that was timed.

    It says so where there was no GPU. The rows are those of the experiment `times`, each with what,
    device, n_users, n_subchannels and batch, and `times` their times per draw [s].

    >>> row = {"what": "pass", "device": "CPU", "n_users": 9, "n_subchannels": 5, "batch": 1}
    >>> print(device_table([row, row | {"device": "GPU (A)"}], [2e-6, 1e-6], "pass"))
    | M | N | batch | CPU [µs] | GPU (A) [µs] |
    | ---: | ---: | ---: | ---: | ---: |
    | 9 | 5 | 1 | 2.00 | 1.00 |
    """
    found: dict[tuple, dict[str, float]] = {}
    for row, time in zip(rows, times, strict=True):
        if row["what"] == what:
            size = row["n_users"], row["n_subchannels"], row["batch"]
            found.setdefault(size, {})[row["device"]] = time
    devices = list(dict.fromkeys(device for by_device in found.values() for device in by_device))
    lines = [
        [*(f"{n:,}" for n in size), *(f"{1e6 * by_device[d]:#.3g}".rstrip(".") for d in devices)]
        for size, by_device in found.items()
    ]
    text = table(["M", "N", "batch", *(f"{device} [µs]" for device in devices)], lines)
    if not any(device.startswith("GPU") for device in devices):
        text += "\n\nThere was no GPU on the machine that built this."
    return text


def first_look(
    rows: Sequence[Mapping[str, Any]],
    axes: Sequence[str],
    metric: str,
    units: Mapping[str, str] | None = None,
) -> Figure:
    """The columns whose name holds `metric`, a line each, over the first axis that is no seed.

    There is a panel for each combination of the other axes. A line is the mean over the seeds, and
    its bars reach from the least to the greatest. Where no name holds `metric`, each number that
    differs between the rows has a panel.

    Args:
        rows: of `records.table`, one a run.
        axes: columns that the runs were made for.
        metric: part of a column's name; `""` is in all.
        units: what follows an axis's name in a label.

    >>> rows = [{"n": n, "rate_max": n / 2, "rate_ipm": n} for n in (1, 2)]
    >>> [line.get_label() for line in first_look(rows, ["n"], "rate").axes[0].lines]
    ['max', 'ipm']
    """
    over, *others = [name for name in axes if name != "seed"] or ["seed" if axes else "run"]
    rows = [{"run": n} | dict(row) for n, row in enumerate(rows)]
    columns = dict.fromkeys(name for row in rows for name in row if type(row[name]) in (int, float))
    numbers = [name for name in columns if name not in ("run", *axes)]
    shown = [name for name in numbers if metric and metric in name]
    differ = [name for name in numbers if len({row.get(name) for row in rows}) > 1] or numbers
    parts: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        parts.setdefault(", ".join(f"{name} = {row[name]}" for name in others), []).append(row)
    panels = [
        (part, names) for part in parts for names in ([shown] if shown else [[n] for n in differ])
    ]
    use_style()
    height, width = max(1, -(-len(panels) // 3)), min(3, max(1, len(panels)))
    fig, places = plt.subplots(height, width, squeeze=False, sharex=True, sharey=bool(shown))
    fig.set_size_inches(max(7.0, 3.2 * width), 2.6 * height + 1.5)
    for panel, (part, names) in zip(places.flat, panels, strict=False):
        for name in names:
            label = name.replace(metric, "").strip("_").replace("_", " ") if shown else name
            _line(panel, parts[part], over, name, label or name)
        title = ", ".join(filter(None, [part, "" if shown else names[0]]))
        panel.set(title=title, xlabel=over + (units or {}).get(over, ""))
        panel.set_ylabel(metric + UNITS.get(metric, "") if shown else "")
    for panel in places.flat[len(panels) :]:
        panel.remove()
    if len(shown) > 1:
        fig.legend(*places.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def _line(panel: Axes, rows: Sequence[Mapping[str, Any]], over: str, name: str, label: str) -> None:
    points: dict[Any, list[float]] = {}
    for row in sorted((row for row in rows if name in row), key=lambda row: row[over]):
        x = row[over] if isinstance(row[over], (int, float)) else str(row[over])
        points.setdefault(x, []).append(row[name])
    means = [sum(values) / len(values) for values in points.values()]
    ends = [(m - min(v), max(v) - m) for m, v in zip(means, points.values(), strict=True)]
    panel.plot(list(points), means, "o-", label=label)
    if any(map(max, ends)):
        color = panel.lines[-1].get_color()
        panel.errorbar(list(points), means, list(zip(*ends, strict=True)), fmt="none", color=color)


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
