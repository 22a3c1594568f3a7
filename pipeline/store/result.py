"""Assembles the shards of a finished run into one result file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5s

from pipeline.store.evidence import gather
from pipeline.store.layout import (
    Dataset,
    Layout,
    create_dimensions,
    describe_dataset,
    write_group,
    write_root,
)
from pipeline.store.new_file import new_file
from pipeline.store.own_shard import Account, own_shard, require_content
from pipeline.store.part import Content, content_of
from pipeline.store.run_directory import RunDirectory
from pipeline.store.shard import new_shard

SMALL = 64 << 20  # bytes up to which a result is one self-contained file
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
    *others, status = layout.datasets()
    accounts = list[Account]()
    with new_shard(path, layout, int(attrs["stop"]), attrs) as writer:
        for place, content in shards.items():
            with own_shard(place, content) as shard:
                accounts.append(shard.account(status))
                rows = {dataset.name: shard.rows(dataset) for dataset in (*others, status)}
            writer.append(rows)
        for group, entries in gather(accounts, next(iter(shards))).items():
            writer.describe(group, entries)


def _virtual(path: Path, layout: Layout, shards: Shards, attrs: Mapping[str, Any]) -> None:
    groups = gather(_accounts(layout, shards), next(iter(shards)))
    with new_file(path) as new:
        file = new.file
        write_root(file, layout, attrs)
        create_dimensions(file, layout, int(attrs["stop"]))
        for dataset in layout.datasets():
            virtual = _mapping(dataset, int(attrs["stop"]), path.parent, shards)
            fill = np.nan if dataset.dtype.kind == "f" else 0
            file.create_virtual_dataset(dataset.name, virtual, fillvalue=fill)
            describe_dataset(file, dataset)
        for group, entries in groups.items():
            write_group(file, group, entries)
        write_group(file, "checksums", {"location": "in each shard"})


def _accounts(layout: Layout, shards: Shards) -> list[Account]:
    *others, status = layout.datasets()
    accounts = []
    for place, content in shards.items():
        with own_shard(place, content) as shard:
            shard.require(others)
            accounts.append(shard.account(status))
    return accounts


def _mapping(dataset: Dataset, points: int, parent: Path, shards: Shards) -> h5py.VirtualLayout:
    """Say where the rows lie: below h5py's own classes, which take most of the time for 10⁵ shards."""
    virtual = h5py.VirtualLayout((points, *dataset.shape), dataset.dtype)
    here = h5s.create_simple(virtual.shape)
    name, origin = dataset.name.encode(), (0,) * len(dataset.shape)
    for place, content in shards.items():
        block = (content.stop - content.start, *dataset.shape)
        here.select_hyperslab((content.start, *origin), block)
        file = bytes(place.relative_to(parent))
        virtual.dcpl.set_virtual(here, file, name, h5s.create_simple(block))
    return virtual
