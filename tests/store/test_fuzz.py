"""Files that are damaged at random: none crashes or holds up the reader, none gives a wrong number unfound."""

import os
import random
import select
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import pipeline
from pipeline import open_results
from pipeline.store.writing import assembly as result_module

MANY = int(os.environ.get("FUZZ_FILES", "200"))
PATIENCE = 5.0  # seconds without a word from the reader
READER = """
import io, resource, sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
import numpy as np
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
from pipeline.results.__main__ import main
from pipeline.errors import PipelineError
from pipeline.store.export.integrity import check_files
from pipeline.store.reading.reader import open_results

expected = np.load(sys.argv[1])
for path in Path(sys.argv[2]).read_text().split():
    try:
        with open_results(path) as stored:
            faults = check_files(stored)
            seen = {name: stored[name][:] for name in stored.names}
    except PipelineError:
        print(path, "refused", flush=True)
        continue
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        main(["show", path])
    same = set(seen) == set(expected) and all(
        np.array_equal(seen[name], expected[name], equal_nan=True) for name in expected
    )
    print(path, "right" if same else "found" if faults else "WRONG", flush=True)
"""


def mutate(content, generator):
    """Damage a file: bits, bytes, ranges of zeros, pieces of itself, its length."""
    content = bytearray(content)
    for _ in range(generator.choice([1, 1, 2, 5, 30])):
        start = generator.randrange(len(content))
        length = generator.choice([1, 1, 1, 2, 4, 8, 64])
        piece = slice(start, min(start + length, len(content)))
        size = piece.stop - piece.start
        other = generator.randrange(len(content) - size)
        match generator.randrange(12):
            case 0 | 1 | 2:
                content[start] ^= 1 << generator.randrange(8)
            case 3 | 4 | 5:
                content[piece] = generator.randbytes(size)
            case 6 | 7 | 8:
                content[piece] = bytes(size)
            case 9:
                content[piece] = content[other : other + size]
            case 10:
                del content[piece]
            case _:
                content[start:start] = content[other : other + size]
    return bytes(content)


def read_all(paths, expected, place):
    """Read files in another process, and those after one that ends or holds up that process."""
    left, outcomes, listing = [str(path) for path in paths], {}, place / "paths"
    while left:
        listing.write_text("\n".join(left))
        command = [sys.executable, "-c", READER, str(expected), str(listing)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=place
        ) as process:
            seen = _outcomes(process)
            process.kill()
            trace = process.stderr.read()
        outcomes |= seen
        assert "Traceback" not in trace, trace[-2000:]
        left = [path for path in left if path not in seen]
        if left:
            outcomes[left.pop(0)] = "crashed or hung"
    return outcomes


def _outcomes(process):
    seen = {}
    while select.select([process.stdout], [], [], PATIENCE)[0]:
        line = process.stdout.readline()
        if not line:
            break
        path, outcome = line.rsplit(" ", 1)
        seen[path] = outcome.strip()
    return seen


def f(x):
    return torch.stack([torch.sin(x).prod(), (x**3).sum()])


POINTS = torch.linspace(-1, 1, 1800, dtype=torch.float64).reshape(600, 3)
KINDS = {  # what is written, and which of its files is damaged
    "one file": ({}, 1 << 40, "result.h5"),
    "compressed": ({"compression": "gzip"}, 1 << 40, "result.h5"),
    "zstd": ({"compression": "zstd"}, 1 << 40, "result.h5"),
    "references": ({}, 0, "result.h5"),
    "shard": ({}, 0, "shards/shard-00001.h5"),
    "compressed shard": ({"compression": "zstd"}, 0, "shards/shard-00001.h5"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each kind, once and for all tests."""
    made, small = {}, result_module.SMALL
    for kind, (store, result_module.SMALL, _) in KINDS.items():
        place = tmp_path_factory.mktemp("run")
        stored = pipeline.run(
            f, POINTS, ["value", "jacobian"], output_dir=place, shard_rows=250, store=store
        )
        stored.close()
        made[kind] = stored.path.parent
    result_module.SMALL = small
    return made


def damaged_runs(run, victim, place, generator, count):
    """Copies of a run, each with one file damaged."""
    whole = (run / victim).read_bytes()
    for number in range(count):
        copy = shutil.copytree(run, place / str(number), copy_function=os.link)
        (copy / victim).unlink()
        (copy / victim).write_bytes(mutate(whole, generator))
        yield copy / "result.h5"


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind == "zstd")) for kind in KINDS]
)
@pytest.mark.parametrize(
    ("seed", "count"), [(0, 25), pytest.param(1, MANY, marks=pytest.mark.slow)]
)
@pytest.mark.timeout(1800)
def test_a_damaged_file_is_right_or_refused_or_found(runs, tmp_path, kind, seed, count):
    generator = random.Random(f"{kind} {seed}")
    with open_results(runs[kind]) as stored:
        np.savez(tmp_path / "expected.npz", **{name: stored[name][:] for name in stored.names})
    paths = list(damaged_runs(runs[kind], KINDS[kind][2], tmp_path, generator, count))
    outcomes = read_all(paths, tmp_path / "expected.npz", tmp_path)
    counts = {word: list(outcomes.values()).count(word) for word in set(outcomes.values())}
    print(kind, counts)
    assert len(outcomes) == count
    assert set(counts) <= {"right", "refused", "found"}, outcomes
    assert counts["refused"] > 0
    assert counts.get("found", 0) > 0 or kind not in ("one file", "shard")
