"""Puts together what shards say of themselves: where they come from, and how sure they are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.store.files.trust import open_checked
from pipeline.store.layout import STATUS, Dataset, read_group
from pipeline.store.parts.own_shard import ACCOUNT, CIRCUMSTANCES, Account, own_shard
from pipeline.store.parts.part import Content

Record = Mapping[str, Any]


def gather_from(
    shards: Iterable[tuple[Path, Content]], status: Dataset, edited: bool
) -> dict[str, dict[str, Any]]:
    """Merge what the shards say that are there of a run, finished or not.

    Args:
        shards: The files, and what each has to hold.
        status: The dataset with the status of each point.
        edited: Whether they may have been changed since they were written.

    Returns:
        As `gather`.
    """
    accounts, paths = list[Account](), list[Path]()
    for path, content in shards:
        with own_shard(path, content, edited) as shard:
            accounts.append(shard.account(shard.read(status)))
        paths.append(path)
    return gather(accounts, paths[0], edited)


def gather(
    accounts: Sequence[Account], first: Path, edited: bool = False
) -> dict[str, dict[str, Any]]:
    """Merge what the shards of a run say of themselves.

    Args:
        accounts: Of each shard, in order.
        first: The file of the first one, which speaks for the others in all that is the same.
        edited: Whether it may have been changed since it was written.

    Returns:
        The groups provenance, certificate and grid, as a result holds them.
    """
    with open_checked(first, edited) as file:
        groups = {name: read_group(file, name) for name in ("provenance", "certificate", "grid")}
    groups["provenance"].pop(ACCOUNT, None)  # of that shard alone
    provenance = merge_provenance([account.provenance for account in accounts])
    certificate = merge_certificates([account.certificate for account in accounts])
    return {
        **groups,
        "provenance": groups["provenance"] | provenance | _sums(accounts),
        "certificate": groups["certificate"] | certificate,
    }


def _sums(accounts: Sequence[Account]) -> dict[str, Any]:
    """So that nobody has to look at every shard again to say how a run has ended."""
    counts = {name: sum(account.counts[name] for account in accounts) for name in STATUS}
    size = sum(account.bytes for account in accounts)
    return {"counts_json": json.dumps(counts), "shard_bytes": size}


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
