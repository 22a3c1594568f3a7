"""Runs written by hand: known values, in one file, in shards, or half done."""

from __future__ import annotations

import numpy as np
from support.sealing import resealed

from pipeline.store.files.run_directory import RunDirectory, shard_ranges
from pipeline.store.layout import SCHEMA, Layout, describe_dataset
from pipeline.store.parts.own_shard import CIRCUMSTANCES
from pipeline.store.writing import assembly as result_module
from pipeline.store.writing.assembly import assemble
from pipeline.store.writing.shard import new_shard

LAYOUT = Layout(
    n=3,
    output_shape=(2,),
    operators=(("value", 0), ("jacobian", 1), ("hessian", 2)),
    dtype="float64",
    title="a test",
    input_names=("a", "b", "c"),
    output_names=("u", "v"),
    input_units="m",
)
CERTIFICATE = {"route": "loop", "rows_checked": 1, "rows_error": "{}", "disagreements": "[]"}
PROVENANCE = {
    **dict.fromkeys(CIRCUMSTANCES, "here"), "started": "1", "finished": "2", "failures_json": "{}",
}  # fmt: skip


def values(layout, points, seed=0):
    """Every value of a run: dataset -> (N, …)."""
    generator = np.random.default_rng(seed)
    whole = {
        d.name: generator.standard_normal((points, *d.shape)).astype(d.dtype)
        for d in layout.datasets()
    }
    whole["status"] = np.where(np.arange(points) % 7 == 3, 2, 1).astype("u1")
    return whole


def write_run(
    path, layout=LAYOUT, points=23, rows=5, kind="virtual", drop=(), axes=(), plan=None, whole=None
):
    """Write a run: kind single, virtual, chunked (in shards) or unfinished; gives its values."""
    whole = values(layout, points) if whole is None else whole
    plan = {"schema": SCHEMA, "points": points, "run_id": "0123", **(plan or {})}
    directory = RunDirectory(path)
    directory.make()
    directory.begin(plan)
    grid = {"spec_json": "{}"} | {f"axis_{k}": axis for k, axis in enumerate(axes, 1)}
    ranges = shard_ranges(points, rows)

    def attrs(start, stop):
        return {
            "run_id": plan["run_id"], "start": start, "stop": stop, "created": "now", "history": "t",
        }  # fmt: skip

    for index, (start, stop) in enumerate(ranges):
        if index in drop:
            continue
        shard = directory.shard(index)
        with new_shard(shard, layout, stop - start, attrs(start, stop)) as writer:
            writer.append({name: array[start:stop] for name, array in whole.items()})
            for group, entries in (
                ("certificate", CERTIFICATE), ("provenance", PROVENANCE), ("grid", grid),
            ):  # fmt: skip
                writer.describe(group, entries)
        if kind == "chunked":
            chunk(shard, layout)
    if kind != "unfinished":
        small, result_module.SMALL = result_module.SMALL, 1 << 40 if kind == "single" else 0
        try:
            assemble(directory, layout, ranges, attrs(0, points))
        finally:
            result_module.SMALL = small
    return whole


def chunk(path, layout):
    """Store a file's datasets compressed, as only HDF5 can read them."""
    with resealed(path) as file:
        for dataset in layout.datasets():
            array = file[dataset.name][()]
            del file[dataset.name]
            file.create_dataset(
                dataset.name, data=array, chunks=(2, *array.shape[1:]), compression="gzip"
            )
            describe_dataset(file, dataset)
