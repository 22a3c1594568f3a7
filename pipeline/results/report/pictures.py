"""Pictures by matplotlib: curves, maps, histograms, matrices. Needs the extra `report`."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize, SymLogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.display import spell_points
from pipeline.results.report.fields import Field
from pipeline.results.report.reach import scaled, within_reach
from pipeline.store.arrays.sparse_values import SparseValues

WIDE = 1e3  # ratio of largest to smallest value from which a scale is logarithmic
MOST_CELLS = 200  # along each side of the picture of a pattern
CUT = (1.0, 99.0)  # percentiles at which colours end
GREY = "#d9d9d9"  # of what has no value
INK = "#1b4965"
QUIET = np.errstate(all="ignore")  # matplotlib's margins around numbers near the ends of float64


@dataclass(frozen=True)
class Picture:
    """A picture for the page.

    Attributes:
        title: What it shows.
        caption: What has to be known to read it.
        source: A data URI.
    """

    title: str
    caption: str
    source: str


@QUIET
def curve(x: NDArray[Any], field: Field, label: str) -> Picture:
    """Draw a field over one input.

    Args:
        x: (B,).
        field: B values.
        label: Name of the input.

    Returns:
        The picture.
    """
    figure, axes = _canvas()
    remark, field = _remark(field), _placed(field)
    x, label = scaled(x, label)
    order = np.argsort(x, kind="stable")
    values = np.where(np.isfinite(field.values), field.values, np.nan)
    if _is_logarithmic(field):
        axes.set_yscale("log")
    axes.plot(x[order], values[order], color=INK, linewidth=1.4, marker="." if len(x) < 60 else "")
    axes.set_xlabel(_plain(label))
    axes.set_ylabel(_plain(field.unit or field.name))
    axes.grid(alpha=0.25)
    return _picture(figure, field.name, remark)


@QUIET
def map_of(x: NDArray[Any], y: NDArray[Any], field: Field, labels: Sequence[str]) -> Picture:
    """Draw a field over a plane of two inputs.

    Args:
        x: (P,) the first input, which varies slowest.
        y: (Q,) the second.
        field: P * Q values.
        labels: Names of the two inputs.

    Returns:
        The picture.
    """
    figure, axes = _canvas()
    remark, field = _remark(field), _placed(field)
    (x, across), (y, up) = scaled(x, labels[0]), scaled(y, labels[1])
    values = field.values.reshape(len(x), len(y)).T
    norm, colours, cut = _colours(field)
    mesh = axes.pcolormesh(
        x,
        y,
        np.ma.masked_invalid(values),
        norm=norm,
        cmap=colours,
        shading="nearest",
        rasterized=True,
    )
    _bar(figure, axes, mesh, field, cut)
    axes.set_facecolor(GREY)
    axes.set_xlabel(_plain(across))
    axes.set_ylabel(_plain(up))
    return _picture(figure, field.name, _with_cut(remark, cut))


@QUIET
def scatter(points: NDArray[Any], field: Field, labels: Sequence[str]) -> Picture:
    """Draw a field at scattered points, over the first two inputs.

    Args:
        points: (B, n), n >= 2.
        field: B values.
        labels: Names of the inputs.

    Returns:
        The picture.
    """
    figure, axes = _canvas()
    remark, field = _remark(field), _placed(field)
    norm, colours, cut = _colours(field)
    finite = np.isfinite(field.values)
    size = float(np.clip(4e4 / max(len(points), 1), 1.5, 30))
    (x, across), (y, up) = scaled(points[:, 0], labels[0]), scaled(points[:, 1], labels[1])
    axes.scatter(x[~finite], y[~finite], s=size, color=GREY, rasterized=True)
    dots = axes.scatter(
        x[finite], y[finite], c=field.values[finite], s=size, norm=norm, cmap=colours,
        linewidths=0, rasterized=True,
    )  # fmt: skip
    _bar(figure, axes, dots, field, cut)
    axes.set_xlabel(_plain(across))
    axes.set_ylabel(_plain(up))
    return _picture(figure, field.name, _with_cut(remark, cut))


@QUIET
def histogram(field: Field) -> Picture:
    """Draw how often which values occur.

    Args:
        field: Any number of values.

    Returns:
        The picture.
    """
    figure, axes = _canvas(height=2.3)
    remark, field = _remark(field), _placed(field)
    values = field.values[np.isfinite(field.values)]
    bins = _bins(values)
    if _is_logarithmic(field):
        values = values[values > 0]
        bins = np.geomspace(values.min(), max(values.max(), 1.01 * values.min()), 60)
        axes.set_xscale("log")
    axes.hist(values, bins=bins, color=INK)
    axes.set_xlabel(_plain(field.unit or field.name))
    axes.set_ylabel("points")
    return _picture(figure, field.name, remark)


def _bins(values: NDArray[Any]) -> Any:
    """60 bins; around values that differ by rounding alone, wide enough for float64 to tell apart."""
    low, high = values.min(), values.max()
    least = max(1e-12 * max(abs(low), abs(high)), 1e-300)
    if high - low >= least:
        return 60
    least = max(least, 0.5) if high == low else least
    most = np.finfo(np.float64).max
    return np.linspace(max(low - least, -most), min(high + least, most), 61)


@QUIET
def matrix(
    title: str, values: NDArray[Any], rows: Sequence[str], columns: Sequence[str]
) -> Picture:
    """Draw a matrix, zero white, signs in two colours.

    Args:
        title: What it is.
        values: (R, C).
        rows: Names of the rows.
        columns: Names of the columns.

    Returns:
        The picture.
    """
    figure, axes = _canvas(height=3.6)
    values, unit = scaled(values, "")
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    largest = float(sizes.max()) if sizes.size else 1.0
    wide = sizes.size and largest / sizes.min() > 10 * WIDE
    norm = (
        SymLogNorm(
            max(float(np.median(sizes)) * 1e-3, largest * 1e-12), vmin=-largest, vmax=largest
        )
        if wide
        else Normalize(-largest, largest)
    )
    picture = axes.imshow(
        np.ma.masked_invalid(values),
        norm=norm,
        cmap=_map("PuOr_r"),
        interpolation="nearest",
        aspect="auto",
    )
    axes.set_facecolor(GREY)
    _name_ticks(axes, rows, columns)
    figure.colorbar(picture, ax=axes, label=unit.replace("/", "×"))
    return _picture(figure, title, "logarithmic in both directions from zero" if wide else "")


def pattern(
    title: str, fractions: NDArray[Any], rows: Sequence[str], columns: Sequence[str]
) -> Picture:
    """Draw which entries are exactly zero, and how often.

    Args:
        title: Of what.
        fractions: (R, C), 1 where an entry is zero at every point.
        rows: Names of the rows.
        columns: Names of the columns.

    Returns:
        The picture.
    """
    figure, axes = _canvas(height=3.6)
    axes.imshow(
        1 - fractions, cmap=_map("Greys"), vmin=0, vmax=1, interpolation="nearest", aspect="auto"
    )
    _name_ticks(axes, rows, columns)
    always = float((fractions == 1).mean())
    words = f"black: never zero, white: zero at every point drawn ({always:.0%} of the entries)"
    return _picture(figure, title, words)


def structure(title: str, matrices: SparseValues) -> Picture:
    """Draw which entries of sparse matrices are stored, several in one cell where they are many.

    Of arrays with more indices the last two are drawn: an entry wherever one of the others has one.

    Args:
        title: Of what.
        matrices: The matrices; nothing but their pattern is read.

    Returns:
        The picture.
    """
    figure, axes = _canvas(height=3.6)
    shape, (rows, columns) = matrices.shape[-2:], matrices.coordinates[-2:]
    cells = [min(length, MOST_CELLS) for length in shape]
    edges = [np.linspace(0, length, count + 1) for length, count in zip(shape, cells, strict=True)]
    counts, *_ = np.histogram2d(rows + 0.5, columns + 0.5, bins=edges)
    extent = (-0.5, shape[1] - 0.5, shape[0] - 0.5, -0.5)
    axes.imshow(
        counts > 0, cmap=_map("Greys"), vmin=0, vmax=1, interpolation="nearest", aspect="auto",
        extent=extent,
    )  # fmt: skip
    axes.set_xlabel("column")
    axes.set_ylabel("row")
    words = (
        f"black: can be other than zero; {matrices.nnz} entries, {matrices.density:.2%} of them all"
    )
    return _picture(figure, title, words)


def _canvas(height: float = 3.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.4, height), layout="constrained")
    axes: Axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _map(name: str) -> Any:
    return colormaps[name].with_extremes(bad=GREY)


def _colours(field: Field) -> tuple[Normalize, Any, bool]:
    """A scale that a few extreme values do not flatten."""
    finite = field.values[np.isfinite(field.values)]
    if not finite.size:
        return Normalize(0, 1), _map("viridis"), False
    if field.signed and finite.min() < 0 < finite.max():
        end = float(np.percentile(np.abs(finite), CUT[1])) or 1.0
        return Normalize(-end, end), _map("PuOr_r"), end < np.abs(finite).max()
    low, high = (float(end) for end in np.percentile(finite, CUT))
    cut = low > finite.min() or high < finite.max()
    if _is_logarithmic(field):
        low, high = (float(end) for end in np.percentile(finite[finite > 0], CUT))
        return LogNorm(low, max(high, 1.01 * low)), _map("viridis"), cut
    return Normalize(low, high if high > low else low + 1), _map("viridis"), cut


def _is_logarithmic(field: Field) -> bool:
    finite = field.values[np.isfinite(field.values)]
    if field.signed or not finite.size or finite.min() < 0 or (finite == 0).mean() > 0.1:
        return False
    low, high = np.percentile(finite[finite > 0], CUT)
    return field.ratio or bool(high > WIDE * low)


def _bar(figure: Figure, axes: Axes, drawn: Any, field: Field, cut: bool) -> None:
    bar = figure.colorbar(drawn, ax=axes, extend="both" if cut else "neither")
    bar.set_label(_plain(field.unit))


def _name_ticks(axes: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    for names, axis in ((rows, axes.yaxis), (columns, axes.xaxis)):
        step = -(-len(names) // 14)
        axis.set_ticks(range(0, len(names), step), [_plain(name) for name in names[::step]])
    if max((len(name) for name in columns), default=0) > 3:
        axes.tick_params(axis="x", rotation=60)


def _placed(field: Field) -> Field:
    return within_reach(field, _is_logarithmic(field))


def _remark(field: Field) -> str:
    """What the picture leaves out."""
    infinite, undefined = np.isinf(field.values).sum(), np.isnan(field.values).sum()
    words = [f"infinite at {spell_points(infinite)}"] if infinite else []
    words += [f"no value at {spell_points(undefined)}"] if undefined else []
    return "; ".join(words)


def _with_cut(remark: str, cut: bool) -> str:
    ends = "colours end at the 1st and 99th percentile" if cut else ""
    return "; ".join(filter(None, (remark, ends)))


def _plain(text: str) -> str:
    """Text as it is: a dollar sign would begin a formula."""
    return text.replace("$", r"\$")


def _picture(figure: Figure, title: str, caption: str) -> Picture:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", dpi=120, metadata={"Date": None})
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return Picture(title, caption, f"data:image/svg+xml;base64,{encoded}")
