"""The writer's thread: order, errors, and what an interruption leaves."""

import threading
import time
from contextlib import contextmanager

import pytest

from pipeline.errors import StoreError
from pipeline.store.files.commit import committed
from pipeline.store.writing.background import BackgroundWriter


class Notes:
    def __init__(self, path):
        self.path, self.lines = path, []

    def append(self, line):
        if line == "full":
            raise OSError(28, "No space left on device")
        self.lines.append(line)


@contextmanager
def notes(path):
    with committed(path) as temporary:
        shard = Notes(temporary)
        temporary.touch()
        yield shard
        temporary.write_text("".join(shard.lines))


def test_shards_are_written_in_order_while_the_caller_goes_on(tmp_path):
    gate = threading.Event()
    with BackgroundWriter(depth=50) as writer:
        writer.begin(notes(tmp_path / "a"))
        writer.call(lambda shard: gate.wait(30))
        for letter in "xyz":
            writer.call(lambda shard, letter=letter: shard.append(letter))
        writer.commit("a")
        writer.begin(notes(tmp_path / "b"))
        for letter in "uvw":
            writer.call(lambda shard, letter=letter: shard.append(letter))
        assert writer.committed() == []
        gate.set()
        writer.commit("b")
        writer.wait()
        assert writer.committed() == ["a", "b"]
        assert writer.committed() == []
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "xyz", "b": "uvw"}


def test_a_shard_is_committed_while_the_next_is_written(tmp_path):
    syncing, written = threading.Event(), threading.Event()

    @contextmanager
    def slow(path):
        with notes(path) as shard:
            yield shard
            syncing.set()
            assert written.wait(30), "the next shard is not written before this one is committed"

    with BackgroundWriter() as writer:
        writer.begin(slow(tmp_path / "a"))
        writer.commit("a")
        assert syncing.wait(30)
        writer.begin(notes(tmp_path / "b"))
        writer.call(lambda shard: written.set())
        writer.commit("b")


def test_a_shard_does_not_count_before_the_one_in_front_of_it(tmp_path):
    @contextmanager
    def failing(path):
        with notes(path) as shard:
            yield shard
            raise OSError(5, "bad")

    def write():
        with BackgroundWriter() as writer:
            writer.begin(failing(tmp_path / "a"))
            writer.commit("a")
            writer.begin(notes(tmp_path / "b"))
            writer.call(lambda shard: shard.append("x"))
            writer.commit("b")

    with pytest.raises(StoreError, match="cannot write .*a: .*bad"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_no_more_than_the_depth_waits(tmp_path):
    held = []
    with BackgroundWriter(depth=2) as writer:
        writer.begin(notes(tmp_path / "a"))
        for number in range(5):
            held.append(number)
            writer.call(lambda shard: (time.sleep(0.02), held.pop()))
            assert len(held) <= 4
        writer.commit("a")


@pytest.mark.parametrize("moment", ["append", "commit"])
def test_what_fails_is_raised_and_leaves_nothing(tmp_path, moment, monkeypatch):
    if moment == "commit":
        monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(5, "bad")))

    def write():
        with BackgroundWriter() as writer:
            writer.begin(notes(tmp_path / "a"))
            writer.call(lambda shard: shard.append("full" if moment == "append" else "x"))
            writer.commit("a")
            writer.begin(notes(tmp_path / "b"))
            for _ in range(5):
                writer.call(lambda shard: shard.append("y"))

    with pytest.raises(StoreError, match="cannot write .*a"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_drops_the_open_shard_and_keeps_the_others(tmp_path):
    def write():
        with BackgroundWriter() as writer:
            writer.begin(notes(tmp_path / "a"))
            writer.commit("a")
            writer.begin(notes(tmp_path / "b"))
            writer.call(lambda shard: shard.append("x"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
