"""Figures of a report as HTML: plots as inline SVG in the page's text colour, pictures as embedded PNG."""

import base64
import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

import numpy as np
from einops import rearrange

INK = "#010203"  # placeholder for the page's text colour
COLOURS = ("#3b82c4", "#d9822b", "#3f9b5f", "#b85aa0", "#8a7a3d", "#c2524a")


@contextlib.contextmanager
def _axes(width: float = 4.2, height: float = 2.6) -> Iterator[Any]:
    """Yields axes in the report's style; `_svg` renders their figure."""
    import matplotlib
    from cycler import cycler
    from matplotlib.figure import Figure

    style = {
        "svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif", "text.color": INK, "axes.labelcolor": INK,
        "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=COLOURS), "legend.frameon": False, "lines.linewidth": 1.4,
        "grid.color": INK, "grid.alpha": 0.12, "axes.grid": True, "legend.fontsize": 8,
    }  # fmt: skip
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.add_subplot()


def _svg(axes: Any, title: str, ink: str = "currentColor") -> str:
    """Renders a figure as inline SVG: transparent, by default in the page's text colour, with unique ids."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": title, "svg.fonttype": "none"}):
        axes.figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S).replace(INK, ink)
    prefix = re.sub(r"\W+", "-", title)
    text = re.sub(r'id="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'(href="#|url\(#)', rf"\1{prefix}-", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(title, quote=True)}"', 1)


def curves(
    title: str,
    series: dict[str, tuple[Sequence, Sequence]],
    *,
    x: str,
    log: bool = False,
    ink: str = "currentColor",
) -> str:
    """Plots curves by name, each (x values, y values).

    Args:
      log: x is on a log₂ scale.
      ink: the colour of text and axes, which an SVG in a file of its own cannot take from a page.
    """
    with _axes() as axes:
        for name, (positions, values) in series.items():
            axes.plot(positions, values, label=name, marker="o" if len(positions) < 12 else None, markersize=3)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(x)
        if log:
            ticks = sorted({position for positions, _ in series.values() for position in positions})
            axes.set_xscale("log", base=2)
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
        if len(series) > 1:
            axes.legend()
        return _svg(axes, title, ink)


def steps(title: str, edges: Sequence, values: Sequence, *, x: str, y: str) -> str:
    """Plots a histogram from its edges and values."""
    with _axes() as axes:
        axes.stairs(values, edges, fill=True, alpha=0.7)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        return _svg(axes, title)


def bars(title: str, values: Sequence, *, x: str, line: float) -> str:
    """Plots one bar per value in [0, 1], with a dashed line at the ideal value."""
    with _axes() as axes:
        axes.bar(np.arange(len(values)), values, width=1.0, alpha=0.7)
        axes.axhline(line, linewidth=1, linestyle="--", color=INK)
        axes.set_ylim(0, 1)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(x)
        return _svg(axes, title)


def matrix(values: Sequence) -> np.ndarray:
    """A matrix as a picture (k, k, 3) uint8: blue for −1, white for 0, red for 1."""
    cells = np.asarray(values, np.float64)[..., None]
    white, red, blue = np.array([247.0] * 3), np.array([178.0, 24, 43]), np.array([33.0, 102, 172])
    colours = np.where(cells > 0, white + (red - white) * cells, white + (blue - white) * -cells)
    return np.clip(np.round(colours), 0, 255).astype(np.uint8)


def bit_picture(codes: np.ndarray) -> np.ndarray:
    """Codes bool (n, y, x, k) as pictures (n, h, w, 1) uint8: one block per token, set bits dark."""
    k = codes.shape[-1]
    rows = next(r for r in range(int(k**0.5), 0, -1) if k % r == 0)
    tiles = rearrange(codes, "n y x (rows columns) -> n (y rows) (x columns)", rows=rows)
    return np.where(tiles, 40, 225).astype(np.uint8)[..., None]


def picture(image: np.ndarray, alt: str, *, width: int | None = None) -> str:
    """An image (h, w, c) uint8 as an `<img>` with embedded data."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(out, "png", optimize=True)
    data = base64.b64encode(out.getvalue()).decode()
    size = "" if width is None else f' style="width:{width}px"'
    return f'<img alt="{escape(alt, quote=True)}"{size} src="data:image/png;base64,{data}">'
