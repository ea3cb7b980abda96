"""One look for every figure of the book. Data and `ax` in, artists out; nothing is computed."""

import matplotlib.pyplot as plt
from cycler import cycler

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


def use_style() -> None:
    """Sets Matplotlib's defaults for a figure at the width of the book's text."""
    plt.rcParams.update(
        {
            "figure.figsize": (7.0, 3.8),
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "font.size": 11,
            "axes.prop_cycle": cycler(color=[BLUE, ORANGE, GREEN, PURPLE, RED, SKY, GREY]),
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.color": "#dddddd",
            "grid.linewidth": 0.7,
            "lines.linewidth": 1.8,
            "lines.markersize": 5,
            "legend.frameon": False,
            "svg.fonttype": "none",
        }
    )
