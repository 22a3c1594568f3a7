"""The page: its numbers by closed forms, its pictures in a real browser."""

import base64
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import pipeline
from pipeline.grids.product import Axis, ProductGrid
from pipeline.results import __main__ as results
from pipeline.results.report.fields import Field, fields
from pipeline.results.report.page import write_report
from pipeline.results.report.pictures import (
    _remark,
    curve,
    histogram,
    map_of,
    matrix,
    pattern,
    scatter,
    structure,
)
from pipeline.results.report.quantities import condition_numbers, eigenvalues, norms, zero_fractions
from pipeline.results.report.reach import scaled, within_reach
from pipeline.results.report.selection import drawn_names, read, select
from pipeline.store.arrays.sparse_rows import SparseRows


def test_norms():
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [3e200, 4e200], [np.nan, 1.0], [np.inf, 1.0]])
    assert np.allclose(norms(rows)[:3], [5.0, 0.0, 5e200])
    assert np.isnan(norms(rows)[3])
    assert norms(rows)[4] == np.inf
    assert norms(np.ones((2, 2, 8))).tolist() == [4.0, 4.0]


def test_spectra():
    rotation = np.array([[0.6, -0.8], [0.8, 0.6]])
    hessian = rotation @ np.diag([-3.0, 12.0]) @ rotation.T
    spectrum = eigenvalues(np.stack([hessian, np.full((2, 2), np.nan), np.zeros((2, 2))]))
    assert np.allclose(spectrum[0], [-3.0, 12.0])
    assert np.isnan(spectrum[1]).all()
    numbers = condition_numbers(spectrum)
    assert np.isclose(numbers[0], 4.0)
    assert np.isnan(numbers[1])
    assert numbers[2] == np.inf
    assert condition_numbers(np.array([[0.0, 5.0]])) == np.inf


def test_zeros():
    rows = np.array([[[0.0, 1.0]], [[0.0, 0.0]], [[0.0, np.nan]], [[-0.0, 5e-324]]])
    assert zero_fractions(rows).tolist() == [[1.0, 0.25]]


def saddle(x):
    return (x[0] ** 2 - 2 * x[1] ** 2) / 2 + 3 * x[0] * x[1]


@pytest.fixture
def plane(tmp_path):
    grid = ProductGrid((Axis(-1.0, 1.0, 5), Axis(0.0, 3.0, 7)))
    return pipeline.run(saddle, grid, "all", output_dir=tmp_path)


def test_fields_have_their_closed_forms(plane):
    chosen = select(plane)
    assert (chosen.axes, chosen.shape, chosen.words) == (
        (0, 1),
        (5, 7),
        "all 35 points of the grid",
    )
    by_name = {field.name: field.values for field in fields(plane, chosen.indices)}
    assert list(by_name) == [
        "value", "gradient: norm", "hessian: smallest eigenvalue", "hessian: largest eigenvalue",
        "hessian: condition number",
    ]  # fmt: skip
    x, y = plane.x[:].T
    assert np.allclose(by_name["gradient: norm"], np.hypot(x + 3 * y, 3 * x - 2 * y))
    low, high = (-1 - np.sqrt(45)) / 2, (-1 + np.sqrt(45)) / 2
    assert np.allclose(by_name["hessian: smallest eigenvalue"], low)
    assert np.allclose(by_name["hessian: condition number"], abs(low / high))


def test_a_slice_through_the_middle_of_a_larger_grid(tmp_path):
    grid = ProductGrid(
        (Axis(0.0, 1.0, 4), Axis(5.0, 5.0, 1), Axis(0.0, 2.0, 3), Axis(-1.0, 1.0, 5))
    )
    stored = pipeline.run(lambda x: (x**2).sum(), grid, "value", output_dir=tmp_path)
    chosen = select(stored)
    assert (chosen.axes, chosen.shape) == ((0, 2), (4, 3))
    assert "12 of 60 points of the grid: the slice at 3 = 0" in chosen.words
    points = read(stored, "x", chosen.indices)
    assert (points[:, 3] == 0.0).all()
    assert len(np.unique(points[:, 0])) == 4


def test_samples_are_bounded_and_leave_out_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.results.report.selection.MOST_POINTS", 200)
    points = torch.arange(1000, dtype=torch.float64)[:, None]
    stored = pipeline.run(lambda x: x.sum(), points, "value", output_dir=tmp_path, shard_rows=100)
    chosen = select(stored)
    assert len(chosen.indices) == 200
    assert chosen.words == "200 of 1000 points, evenly spaced"
    assert np.array_equal(read(stored, "value", chosen.indices), chosen.indices)
    folder = stored.path.parent
    (folder / "result.h5").unlink()
    (folder / "shards" / "shard-00003.h5").unlink()
    with pipeline.open_results(folder) as unfinished:
        there = select(unfinished).indices
        assert not ((there >= 300) & (there < 400)).any()
        assert np.array_equal(read(unfinished, "value", there), there)


def chain(x):
    return ((x[1:] - x[:-1] ** 2) ** 2).sum()


@pytest.mark.parametrize("store", [{"format": "sparse"}, {"symmetric": "packed"}], ids=str)
def test_what_is_stored_in_part_is_drawn_as_a_whole(tmp_path, monkeypatch, store):
    points = torch.linspace(-1, 1, 120, dtype=torch.float64).reshape(30, 4)
    stored = pipeline.run(chain, points, "hessian", output_dir=tmp_path, store=store)
    found = {field.name: field.values for field in fields(stored, np.arange(30))}
    expected = np.linalg.eigvalsh(stored.hessian[:])
    assert np.allclose(found["hessian: smallest eigenvalue"], expected[:, 0])
    assert np.allclose(found["hessian: largest eigenvalue"], expected[:, -1])
    write_report(stored, tmp_path / "page.html", [3])
    text = (tmp_path / "page.html").read_text()
    for title in ("hessian at point 3", "hessian: exact zeros"):
        assert f"<figcaption>{title}</figcaption>" in text
    words = "black: can be other than zero; 10 entries, 62.50% of them all"
    assert (words in text) == ("format" in store)
    monkeypatch.setattr("pipeline.results.report.selection.MOST_CELLS", 15)
    assert drawn_names(stored)[0] == ("hessian_sparse" if "format" in store else "hessian")


def test_what_is_hardly_ever_zero_is_not_drawn(tmp_path):
    points = torch.linspace(0, 1, 60, dtype=torch.float64).reshape(30, 2)  # zero at one of them
    stored = pipeline.run(lambda x: (x[0] * x[1]) ** 2, points, "hessian", output_dir=tmp_path)
    write_report(stored, tmp_path / "page.html", [3])
    text = (tmp_path / "page.html").read_text()
    assert "hessian at point 3" in text
    assert "exact zeros" not in text


def test_a_large_pattern_is_drawn_in_cells(monkeypatch):
    monkeypatch.setattr("pipeline.results.report.pictures.MOST_CELLS", 7)
    n = 1000
    matrices = SparseRows(np.ones((2, n)), np.arange(n + 1), np.arange(n), n)
    assert "1000 entries, 0.10% of them all" in structure("p", matrices).caption


def test_spectra_and_sums_keep_their_signs(tmp_path):
    points = torch.rand(8, 2, dtype=torch.float64)
    stored = pipeline.run(saddle, points, ["laplacian", "eigenvalues"], output_dir=tmp_path)
    found = {field.name: field for field in fields(stored, np.arange(8))}
    assert np.allclose(found["laplacian"].values, -1.0)
    assert found["laplacian"].signed
    assert np.allclose(found["eigenvalues: smallest eigenvalue"].values, (-1 - np.sqrt(45)) / 2)
    assert np.allclose(found["eigenvalues: largest eigenvalue"].values, (-1 + np.sqrt(45)) / 2)


MOST = np.finfo(np.float64).max
ODD = [
    Field("plain", np.linspace(0.0, 1.0, 12)),
    Field("constant", np.ones(12)),
    Field("zero", np.zeros(12)),
    Field("wide", np.geomspace(1e-150, 1e150, 12)),
    Field("signed", np.linspace(-1.0, 3.0, 12), "m $x$ \\frac", signed=True),
    Field("rounding", 6 + np.arange(12) % 3 * 8.9e-16),
    Field("large", 1e17 + 16.0 * np.arange(12)),
    Field("large constant", np.full(12, 1e17)),
    Field("holes", np.array([np.nan, np.inf, -np.inf, *range(9)])),
    Field("one left", np.array([np.nan] * 11 + [2.0]), ratio=True),
    Field("$\\frac{<b>", np.array([0.0] * 6 + [1e-9] * 6)),
]


OUT_OF_REACH = [
    Field("largest", np.linspace(-1, 1, 12) * MOST),
    Field("largest, signed", np.linspace(-1, 1, 12) * MOST, signed=True),
    Field("largest alone", np.full(12, -MOST)),
    Field("largest ratio", np.array([1.0] * 6 + [MOST] * 6), ratio=True),
    Field("subnormal", (np.arange(12) - 6) * 5e-324, signed=True),
    Field("subnormal ratio", np.arange(1, 13) * 5e-324, ratio=True),
    Field("all sizes", np.geomspace(1e-320, 1e308, 12)),
    Field("all sizes and signs", np.array([-MOST, -1, 0, 1e-300, 5e-324, MOST] * 2)),
    Field("within reach", np.linspace(-1, 1, 12) * 0.99e200),
]


@pytest.mark.parametrize("field", ODD, ids=lambda field: field.name)
def test_no_field_breaks_a_picture(field):
    places = np.arange(24.0).reshape(12, 2)
    labels = ("$a", "b_{")
    drawn = [
        curve(places[:, 0], field, "x"),
        map_of(np.arange(3.0), np.arange(4.0), field, labels),
        scatter(places, field, labels),
        histogram(field),
        matrix(field.name, field.values.reshape(3, 4), "abc", "abcd"),
    ]
    for picture in drawn:
        kind, _, data = picture.source.partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert base64.b64decode(data).startswith(b"<?xml")
        assert picture.title == field.name
    assert ("no value at" in drawn[0].caption) == bool(np.isnan(field.values).any())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("field", OUT_OF_REACH, ids=lambda field: field.name)
def test_numbers_near_the_ends_of_float64_are_drawn(field):
    scatter(np.stack([field.values, field.values[::-1]], 1), field, "ab")
    histogram(field)
    matrix(field.name, field.values.reshape(3, 4), "abc", "abcd")
    places = np.unique(field.values)
    over = Field("over", np.arange(2.0 * len(places)))
    map_of(places, np.arange(2.0), over, "ab")
    curve(field.values, field, "x")


def test_what_is_out_of_reach_is_drawn_in_other_units():
    values, label = scaled(np.array([-MOST, 0.0, 5e307]), "energy")
    assert label == "energy / 1e308"
    assert np.allclose(values, [-MOST / 1e308, 0.0, 0.5], rtol=1e-15)
    values, label = scaled(np.array([5e-324, 0.0, -2e-323, np.nan]), "x")
    assert label == "x / 1e-323"  # floor(log10(1.98e-323))
    assert np.allclose(values[:3], [5e-324 / 1e-323, 0.0, -2.0], rtol=0.1)
    assert values[0] / values[2] == -0.25
    values, label = scaled(np.array([1e200, 1.0, np.inf]), "x")
    assert (label, values.tolist()) == ("x", [1e200, 1.0, np.inf])
    drawn = within_reach(Field("f", np.array([5e-324, 1e308, 0.0]), "eV", ratio=True), True)
    assert drawn.unit == "log10(eV)"
    assert np.allclose(drawn.values[:2], [np.log10(5e-324), 308.0])
    assert np.isnan(drawn.values[2])


@pytest.mark.filterwarnings("error")
def test_a_report_of_numbers_near_the_ends_of_float64(tmp_path):
    points = torch.linspace(-1, 1, 60, dtype=torch.float64).reshape(30, 2)
    stored = pipeline.run(lambda x: 1e250 * x.prod(), points, "all", output_dir=tmp_path)
    write_report(stored, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert text.count("<img ") >= 10
    small = pipeline.run(lambda x: 1e-250 * x.prod(), points, "all", output_dir=tmp_path)
    write_report(small, tmp_path / "page.html")


def test_a_pattern_says_how_much_is_always_zero():
    picture = pattern("p", np.array([[1.0, 0.0], [0.5, 1.0]]), "ab", "ab")
    assert "(50% of the entries)" in picture.caption


def fussy(x):
    if x[0] > 0.8:
        raise ValueError("<script>alert(1)</script>")
    return torch.stack([torch.sqrt(x[0]), x[1] * x[0]])


def test_points_that_are_not_ok_are_listed_and_nothing_is_markup(tmp_path):
    points = torch.linspace(-0.2, 1.0, 60, dtype=torch.float64).reshape(30, 2)
    stored = pipeline.run(fussy, points, ["jacobian", "hessian"], output_dir=tmp_path, route="loop")
    write_report(stored, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "<script>" not in text
    assert "ValueError: &lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<td>nonfinite</td>" in text
    assert "hessian of output 0 at point" in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)


def chromium():
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None and os.environ.get("CI"):
        pytest.fail("CI has to run this test: apt-get install chromium")
    if program is None:
        pytest.skip("chromium not found")
    return program


PROBE = """
<script>
addEventListener("load", () => {
  const pictures = [...document.images].map(image => image.naturalWidth);
  document.title = JSON.stringify({pictures, requests: performance.getEntriesByType("resource")
    .map(entry => entry.name).filter(name => !name.startsWith("data:"))});
});
</script>
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_real_browser_shows_every_picture_without_a_network(plane, tmp_path):
    program = chromium()
    page = tmp_path / "page.html"
    assert results.main(["report", str(plane.path), str(page), "--points", "0,34"]) == 0
    text = page.read_text()
    policy = re.search(r'<meta http-equiv="Content-Security-Policy"[^>]*>', text)[0]
    # the page itself allows no script: the probe needs a copy that does
    page.write_text(text.replace(policy, "").replace("</body>", PROBE + "</body>"))
    done = subprocess.run(
        [
            "unshare", "--net", program, "--headless", "--no-sandbox", "--disable-gpu",
            "--virtual-time-budget=10000", "--enable-logging=stderr", f"--user-data-dir={tmp_path}/profile",
            "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "CONSOLE" not in done.stderr
    seen = re.search(r"<title>(.*?)</title>", done.stdout)[1]
    assert '"requests":[]' in seen
    widths = [int(width) for width in re.findall(r"\d+", seen.partition("]")[0])]
    assert len(widths) == text.count("<img ") >= 12
    assert min(widths) > 100
    for heading in ("Evidence", "Over the inputs", "Distributions", "Matrices"):
        assert f"<h2>{heading}</h2>" in done.stdout


def test_the_command_says_what_has_to_be_installed(plane, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pipeline.results.report.page", None)
    assert results.main(["report", str(plane.path), str(tmp_path / "a.html")]) == 1
    assert "pip install 'pipeline-derivatives[report]'" in capsys.readouterr().err


def test_one_point_is_one_point():
    values = np.array([np.nan, 1.0, np.inf, np.inf])
    assert _remark(Field("y", values)) == "infinite at 2 points; no value at 1 point"
