"""Puts together what shards say of themselves: where they come from, and how sure they are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.store.layout import STATUS, read_group
from pipeline.store.trust import open_checked

CIRCUMSTANCES = ("host", "slurm_job_id", "device", "torch", "threads", "git_commit")
Record = Mapping[str, Any]


def gather(shards: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Read the groups of all shards and merge them.

    Args:
        shards: Files of one run, in order.

    Returns:
        The groups provenance, certificate and grid, as a result holds them.
    """
    provenances, certificates = [], []
    counts: Counter[int] = Counter()
    for shard in shards:
        with open_checked(shard) as file:
            counts.update(_tally(file))
            provenances.append(read_group(file, "provenance", SHARD_PROVENANCE))
            certificates.append(read_group(file, "certificate", SHARD_CERTIFICATE))
    with open_checked(shards[0]) as file:
        first = {name: read_group(file, name) for name in ("provenance", "certificate", "grid")}
    return {
        **first,
        "provenance": first["provenance"] | merge_provenance(provenances) | _named(counts),
        "certificate": first["certificate"] | merge_certificates(certificates),
    }


def _tally(file: h5py.File) -> dict[int, int]:
    values, counts = np.unique(file["status"][()], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _named(counts: Mapping[int, int]) -> dict[str, str]:
    """Points of each status: so that nobody has to open every shard to say how a run has ended."""
    return {"counts_json": json.dumps({name: counts.get(code, 0) for name, code in STATUS.items()})}


def merge_provenance(records: Sequence[Record]) -> dict[str, Any]:
    """Merge what differs between shards.

    Args:
        records: Provenance of each shard.

    Returns:
        First start, last end, all failures, and in ``circumstances_json`` every combination of
        host, job, device, torch, threads and commit, with the number of shards that it computed.
    """
    seen = Counter(tuple(record[name] for name in CIRCUMSTANCES) for record in records)
    circumstances = [
        {**dict(zip(CIRCUMSTANCES, values, strict=True)), "shards": count}
        for values, count in seen.items()
    ]
    failures: dict[str, str] = {}
    for record in records:
        failures |= json.loads(record["failures_json"])
    return {
        "started": min(record["started"] for record in records),
        "finished": max(record["finished"] for record in records),
        "failures_json": json.dumps(failures),
        "circumstances_json": json.dumps(circumstances),
    }


def merge_certificates(records: Sequence[Record]) -> dict[str, Any]:
    """Merge the evidence that each shard has of its own.

    Args:
        records: Certificate of each shard.

    Returns:
        All rows that were checked, their worst error, and every disagreement once.
    """
    worst: dict[str, float] = {}
    disagreements: dict[str, None] = {}
    for record in records:
        disagreements |= dict.fromkeys(json.loads(record["disagreements"]))
        for name, error in json.loads(record["rows_error"]).items():
            worst[name] = max(worst.get(name, 0.0), error)
    return {
        "rows_checked": sum(record["rows_checked"] for record in records),
        "rows_error": json.dumps(worst),
        "disagreements": json.dumps(list(disagreements)),
    }


SHARD_PROVENANCE = (*CIRCUMSTANCES, "started", "finished", "failures_json")
SHARD_CERTIFICATE = ("rows_checked", "rows_error", "disagreements")
