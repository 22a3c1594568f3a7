"""Assembles the shards of a finished run into one result file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5s

from pipeline.store.files.new_file import new_file
from pipeline.store.files.run_directory import RESULT, RunDirectory
from pipeline.store.layout import (
    Dataset,
    Layout,
    create_dimensions,
    describe_dataset,
    write_group,
    write_root,
)
from pipeline.store.parts.evidence import gather
from pipeline.store.parts.known_shards import known_entries
from pipeline.store.parts.own_shard import Account, own_shard, require_content
from pipeline.store.parts.part import Content, content_of
from pipeline.store.writing.shard import new_shard

SMALL = 64 << 20  # bytes up to which a result is one self-contained file
MOST_SOURCES = 1000  # files that a result refers to: HDF5 reads all references before the first row
Shards = Mapping[Path, Content]


def assemble(
    directory: RunDirectory,
    layout: Layout,
    ranges: Sequence[tuple[int, int]],
    attrs: Mapping[str, Any],
) -> None:
    """Make the result of a run from its shards: a real file when small, else virtual datasets.

    Args:
        directory: Of the run; every shard is there.
        layout: What the result holds.
        ranges: start, stop of every shard.
        attrs: Attributes of the root group, with start and stop of the whole run.

    Raises:
        StoreError: A shard cannot be read, does not fit, or belongs to another plan.
    """
    run_id = str(attrs["run_id"])
    shards = {directory.shard(i): Content(run_id, *span) for i, span in enumerate(ranges)}
    for index in sorted(directory.finished_shards() - set(range(len(ranges)))):
        stranger = directory.shard(index)
        require_content(stranger, content_of(stranger), None)
    make = _copy if int(attrs["stop"]) * layout.row_bytes() <= SMALL else _virtual
    make(directory.result, layout, shards, attrs)


def _copy(path: Path, layout: Layout, shards: Shards, attrs: Mapping[str, Any]) -> None:
    accounts = list[Account]()
    with new_shard(path, layout, int(attrs["stop"]), attrs) as writer:
        for place, content in shards.items():
            with own_shard(place, content) as shard:
                rows = {dataset.name: shard.rows(dataset) for dataset in layout.datasets()}
                accounts.append(shard.account(rows["status"]))
            writer.append(rows)
        for group, entries in gather(accounts, next(iter(shards))).items():
            writer.describe(group, entries)


def _virtual(path: Path, layout: Layout, shards: Shards, attrs: Mapping[str, Any]) -> None:
    datasets = layout.datasets()
    accounts, offsets = list[Account](), list[list[int]]()
    for place, content in shards.items():
        with own_shard(place, content) as shard:
            offsets.append(shard.offsets(datasets))
            accounts.append(shard.account(shard.read(datasets[-1])))
    known = known_entries(datasets, [account.mark for account in accounts], offsets)
    refer(path, layout, shards, attrs, gather(accounts, next(iter(shards))) | known)


def refer(
    path: Path,
    layout: Layout,
    shards: Shards,
    attrs: Mapping[str, Any],
    groups: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write a result that refers to shards, of which none is opened.

    Args:
        path: The result.
        layout: What it holds.
        shards: In order, with the points that each holds.
        attrs: Attributes of the root group.
        groups: What is written beside the datasets.
    """
    sources = shards if len(shards) <= MOST_SOURCES else dict(_views(layout, shards))
    with new_file(path) as new:
        file = new.file
        write_root(file, layout, attrs)
        create_dimensions(file, layout, int(attrs["stop"]))
        for dataset in layout.datasets():
            _refer(file, dataset, path.parent, sources)
            describe_dataset(file, dataset)
        for group, entries in groups.items():
            write_group(file, group, entries)
        write_group(file, "checksums", {"location": "in each shard"})


def _views(layout: Layout, shards: Shards) -> Iterator[tuple[Path, Content]]:
    """Write files that stand between the result and many shards: the rows of up to 1,000 as one."""
    every = list(shards.items())
    for low in range(0, len(every), MOST_SOURCES):
        some = dict(every[low : low + MOST_SOURCES])
        folder = every[low][0].parent
        path = folder / f"view-{low:05d}-{low + len(some):05d}.h5"
        spans = list(some.values())
        content = replace(spans[0], stop=spans[-1].stop)
        with new_file(path) as new:  # dropped where an earlier end of the run has written the same
            new.file.attrs["title"] = f"{len(some)} shards as one, for ../{RESULT}"
            for dataset in layout.datasets():
                _refer(new.file, dataset, folder, some)
        yield path, content


def _refer(file: h5py.File, dataset: Dataset, folder: Path, sources: Shards) -> None:
    """Make a virtual dataset: below h5py's own classes, which take most of the time for many files."""
    spans = list(sources.values())
    first, points = spans[0].start, spans[-1].stop - spans[0].start
    virtual = h5py.VirtualLayout((points, *dataset.shape), dataset.dtype)
    here = h5s.create_simple(virtual.shape)
    name, origin = dataset.name.encode(), (0,) * len(dataset.shape)
    for place, content in sources.items():
        block = (content.stop - content.start, *dataset.shape)
        here.select_hyperslab((content.start - first, *origin), block)
        relative = bytes(place.relative_to(folder))
        virtual.dcpl.set_virtual(here, relative, name, h5s.create_simple(block))
    fill = np.nan if dataset.dtype.kind == "f" else 0
    file.create_virtual_dataset(dataset.name, virtual, fillvalue=fill)
