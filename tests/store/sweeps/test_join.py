"""The runs of a sweep, joined along what was swept."""

import itertools
import json
import logging
import shutil

import numpy as np
import pytest
from support.stored_runs import values, write_run

from pipeline import open_sweep
from pipeline.errors import StoreError
from pipeline.store.layout import Layout
from pipeline.store.reading.reader import open_results

AXES = (np.array([0.5, 1.0, 4.0]), np.array([-1.0, 0.0, 1.0, 2.0]))
GRID = {"name": "linspace", "count": [3, 4], "lower": [0.5, -1.0]}


def write(
    place,
    job="hessian",
    function="rosenbrock",
    b=1.0,
    dtype="float64",
    grid=GRID,
    points=12,
    **more,
):
    """Write a run as the runner does, with values of its own; gives its values."""
    order = {"value": 0, "gradient": 1, "hessian": 2}
    names = ["value", "hessian"] if job == "both" else [job]
    layout = Layout(2, (), tuple((name, order[name]) for name in names), dtype, "t")
    identity = {
        "function": function, "parameters": {"a": 1.0, "b": b}, "source": "0", "grid": grid,
        "operators": [[name, order[name]] for name in names], "dtype": dtype,
    }  # fmt: skip
    extra = {name: more.pop(name) for name in list(more) if name in ("kind", "drop")}
    identity |= more
    run_id = f"{job}-{function}-{b}-{dtype}-{'-'.join(map(str, more.values()))}"
    axes = AXES if grid is GRID else ()
    whole = values(layout, points, seed=abs(hash((job, b, dtype))) % 1000)
    if axes:
        mesh = np.meshgrid(*axes, indexing="ij")
        whole["x"] = np.stack([part.reshape(-1) for part in mesh], axis=1).astype(dtype)
    plan = {"run_id": run_id, "identity": identity, "created": f"{b:09.3f}"}
    path = place / job / function / run_id
    write_run(path, layout, points, 5, axes=axes, plan=plan, whole=whole, **extra)
    return whole


def test_swept_parameters_become_dimensions(tmp_path):
    whole = {
        (b, dtype): write(tmp_path, b=b, dtype=dtype)
        for b, dtype in itertools.product((10.0, 1.0, 100.0), ("float32", "float64"))
    }
    data = open_sweep(tmp_path)
    assert data["hessian"].dims == ("b", "dtype", "x1", "x2", "input", "input_2")
    assert data["b"].values.tolist() == [1.0, 10.0, 100.0]
    assert sorted(data["dtype"].values) == ["float32", "float64"]
    assert np.array_equal(data["x1"], AXES[0])
    assert data["hessian"].dtype == np.float64
    for (b, dtype), expected in whole.items():
        found = data["hessian"].sel(b=b, dtype=dtype).values.reshape(12, 2, 2)
        assert np.array_equal(found, expected["hessian"])
        run = str(data["run_id"].sel(b=b, dtype=dtype).values)
        assert run == f"hessian-rosenbrock-{b}-{dtype}-"
    assert (data.attrs["function"], data.attrs["a"], data.attrs["job"]) == (
        "rosenbrock",
        1.0,
        "hessian",
    )
    assert data.attrs["grid.count"] == "[3, 4]"
    assert (data.attrs["missing"], data.attrs["unfinished"]) == ([], [])
    assert "b" not in data.attrs


def test_jobs_give_datasets_and_share_what_both_have(tmp_path):
    gradients = {b: write(tmp_path, "gradient", b=b) for b in (1.0, 2.0)}
    hessians = {b: write(tmp_path, "hessian", b=b) for b in (1.0, 2.0)}
    data = open_sweep(tmp_path)
    assert data["gradient"].dims == ("b", "x1", "x2", "input")
    assert data["hessian"].dims == ("b", "x1", "x2", "input", "input_2")
    assert data["status"].dims == ("b", "job", "x1", "x2")
    for b in (1.0, 2.0):
        assert np.array_equal(
            data["gradient"].sel(b=b).values.reshape(12, 2), gradients[b]["gradient"]
        )
        assert np.array_equal(
            data["hessian"].sel(b=b).values.reshape(12, 2, 2), hessians[b]["hessian"]
        )
        status = data["status"].sel(b=b, job="hessian").values.reshape(12)
        assert np.array_equal(status, hessians[b]["status"])
    only = open_sweep(tmp_path, job="gradient", b=2)
    assert "hessian" not in only
    assert only["gradient"].dims == ("x1", "x2", "input")
    assert str(only["run_id"].values) == "gradient-rosenbrock-2.0-float64-"


def test_what_was_not_run_is_nan_and_said(tmp_path, caplog):
    whole = write(tmp_path, b=1.0, dtype="float32")
    write(tmp_path, b=2.0, dtype="float64")
    write(tmp_path, b=3.0, dtype="float32")
    write(tmp_path, b=3.0, dtype="float64")
    with caplog.at_level(logging.WARNING):
        data = open_sweep(tmp_path)
    missing = ["hessian of b=1.0, dtype=float64", "hessian of b=2.0, dtype=float32"]
    assert data.attrs["missing"] == missing
    assert "2 missing: hessian of b=1.0, dtype=float64" in caplog.text
    assert np.isnan(data["hessian"].sel(b=1.0, dtype="float64")).all()
    assert (data["status"].sel(b=2.0, dtype="float32") == 0).all()
    there = data["hessian"].sel(b=1.0, dtype="float32").values.reshape(12, 2, 2)
    assert np.array_equal(there, whole["hessian"])
    assert str(data["run_id"].sel(b=1.0, dtype="float64").values) == ""


def test_unfinished_runs_are_said_and_filled(tmp_path):
    write(tmp_path, b=1.0)
    whole = write(tmp_path, b=2.0, kind="unfinished", drop=(1,))
    write(tmp_path, b=3.0, kind="unfinished", drop=(0, 1, 2))
    data = open_sweep(tmp_path)
    said = data.attrs["unfinished"]
    assert len(said) == 2
    assert said[0].endswith("hessian-rosenbrock-2.0-float64-: 5 of 12 points are missing")
    assert said[1].endswith("hessian-rosenbrock-3.0-float64-: no shard is there yet")
    assert data.attrs["missing"] == ["hessian of b=3.0"]
    found = data["hessian"].sel(b=2.0).values.reshape(12, 2, 2)
    assert np.isnan(found[5:10]).all()
    assert np.array_equal(found[:5], whole["hessian"][:5])
    with pytest.raises(StoreError, match="none of the 1 runs below .* has a shard yet; wait"):
        open_sweep(tmp_path, b=3)


def test_a_parameter_that_follows_from_another_is_a_coordinate(tmp_path):
    for b, a in ((1.0, 5.0), (2.0, 7.0)):
        write(tmp_path, b=b, parameters={"b": b, "a": a})
    data = open_sweep(tmp_path)
    assert data["hessian"].dims[0] == "b"
    assert data["a"].dims == ("b",)
    assert data["a"].sel(b=2.0) == 7.0


def test_a_parameter_may_be_called_as_a_dataset(tmp_path):
    for number in (1.0, 2.0):
        write(tmp_path, parameters={"value": number, "x1": 3.0, "dtype": number}, job="value")
    data = open_sweep(tmp_path)
    assert data["value"].dims == ("value_parameter", "x1", "x2")
    assert data["dtype_parameter"].dims == ("value_parameter",)


def test_seeds_are_swept_and_keep_their_points(tmp_path):
    whole = {}
    for seed in (0, 1):
        write(tmp_path, b=float(seed), parameters={}, grid={"name": "random", "seed": seed})
        (path,) = tmp_path.glob(f"*/*/hessian-rosenbrock-{float(seed)}*")
        whole[seed] = open_results(path)
    data = open_sweep(tmp_path)
    assert data["hessian"].dims == ("grid.seed", "point", "input", "input_2")
    assert data["x"].dims == ("grid.seed", "point", "input")
    for seed in (0, 1):
        assert np.array_equal(data["x"].sel({"grid.seed": seed}), whole[seed].x[:])


def test_points_that_are_common_to_all_runs_are_stored_once(tmp_path):
    for b in (1.0, 2.0):
        write(tmp_path, b=b, grid={"name": "random", "seed": 3})
    data = open_sweep(tmp_path)
    assert data["x"].dims == ("point", "input")
    assert open_sweep(tmp_path, chunks={})["hessian"].chunks is not None


def test_what_cannot_be_joined_says_how_to_select(tmp_path):
    write(tmp_path, b=1.0)
    write(tmp_path, b=1.0, function="ackley", parameters={"c": 2.0})
    both = open_sweep(tmp_path)  # two functions on the same grid
    assert both["hessian"].dims[0] == "function"
    assert both["c"].sel(function="ackley") == 2.0
    assert np.isnan(both["c"].sel(function="rosenbrock"))
    write(tmp_path, b=2.0)
    with pytest.raises(StoreError, match=r"differ in b:(.|\n)*function='rosenbrock'\) or"):
        open_sweep(tmp_path)
    shutil.rmtree(tmp_path / "hessian" / "rosenbrock")
    write(tmp_path, b=1.0)
    assert "hessian" in open_sweep(tmp_path, function="ackley")
    other = GRID | {"count": [4, 3]}
    write(tmp_path, grid=other, version=2)
    with pytest.raises(
        StoreError, match=r"differ in grid.count:\n  grid.count = \[3, 4\]\n  .*\[4, 3\]"
    ):
        open_sweep(tmp_path, function="rosenbrock")
    assert "x" in open_sweep(tmp_path, function="rosenbrock", **{"grid.count": [4, 3]})
    write(tmp_path, source="1")
    with pytest.raises(StoreError, match="differ in source:\n  source = 0\n  source = 1"):
        open_sweep(tmp_path, function="rosenbrock", **{"grid.count": [3, 4]})


def test_shapes_that_differ_are_named(tmp_path):
    write(tmp_path, b=1.0, grid={"name": "random", "seed": 1})
    write(tmp_path, b=1.0, grid={"name": "random", "seed": 2}, points=13, version=2)
    with pytest.raises(
        StoreError,
        match=r"shape \(12, 2, 2\) for grid.seed=1 and \(13, 2, 2\) for grid.seed=2; select",
    ):
        open_sweep(tmp_path)


def test_nothing_to_select(tmp_path):
    with pytest.raises(StoreError, match="expected runs below it, found no run.json"):
        open_sweep(tmp_path)
    write(tmp_path)
    with pytest.raises(StoreError, match="has 'functoin'. Did you mean 'function'"):
        open_sweep(tmp_path, functoin="rosenbrock")
    with pytest.raises(StoreError, match=r"has b=7; expected one of \[1.0\]"):
        open_sweep(tmp_path, b=7)
    (path,) = tmp_path.rglob("run.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"identity": {}}))
    with pytest.raises(
        StoreError, match=r"run.json is not the plan of a run: KeyError.*move it away"
    ):
        open_sweep(tmp_path)


@pytest.mark.slow
def test_a_real_sweep(cli, tmp_path):
    done = cli(
        "-m",
        "job=gradient,hessian",
        "function=rosenbrock",
        "function_params.b=1,10",
        "grid.count=4",
    )
    assert done.returncode == 0, done.stderr
    data = open_sweep(tmp_path / "outputs")
    assert data["hessian"].dims == ("b", "x1", "x2", "input", "input_2")
    x1 = data["x1"].values[:, None] + 0 * data["x2"].values
    assert np.allclose(data["hessian"].isel(input=1, input_2=1).sel(b=10), 20.0)
    assert np.allclose(data["gradient"].isel(input=1).sel(b=1), 2 * (data["x2"].values - x1**2))
