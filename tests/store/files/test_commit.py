"""A name is given once, by links or without them: what is there is never replaced."""

import errno
import os
import threading
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.store.files import commit
from pipeline.store.files.commit import committed


def refuse(number):
    def call(*_):
        raise OSError(number, os.strerror(number))

    return call


@pytest.fixture(params=["links", "rename", "claim"])
def way(request, monkeypatch):
    """File systems: with links; without; without that and without a rename that replaces nothing."""
    if request.param != "links":
        monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    if request.param == "claim":
        monkeypatch.setattr(commit, "_rename_to_nothing", refuse(errno.EINVAL))
    return request.param


def write(path, text):
    with committed(path) as temporary:
        temporary.write_text(text)


def test_contents_are_durable_before_the_name_and_the_name_before_anybody_is_told(
    tmp_path, way, monkeypatch
):
    sync, final, seen = os.fsync, tmp_path / "done", []

    def watched(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        seen.append(("directory" if path == tmp_path else "contents", final.exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    write(final, "text")
    assert seen == [("contents", False), ("directory", True)]


def test_what_is_there_is_never_replaced(tmp_path, way):
    write(tmp_path / "done", "first")
    write(tmp_path / "done", "second")
    assert (tmp_path / "done").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["done"]


def test_one_of_many_is_first(tmp_path, way):
    together = threading.Barrier(8)
    seen = []

    def work(number):
        with committed(tmp_path / "done") as temporary:
            temporary.write_text(str(number))
            together.wait()
        seen.append((tmp_path / "done").read_text())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert len(set(seen)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["done"]


def test_a_rename_that_fails_is_no_success(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    monkeypatch.setattr(commit, "_rename_to_nothing", refuse(errno.ENOSYS))
    monkeypatch.setattr(commit.Path, "rename", refuse(errno.EPERM))
    with pytest.raises(StoreError, match="cannot write .*Operation not permitted"):
        write(tmp_path / "done", "text")
    assert list(tmp_path.iterdir()) == []


def test_a_claim_that_nobody_gives_back(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    monkeypatch.setattr(commit, "_rename_to_nothing", refuse(errno.ENOSYS))
    monkeypatch.setattr(commit, "CLAIM_SECONDS", 0.2)
    (tmp_path / ".done.claim").touch()
    with pytest.raises(
        StoreError, match=r"another process was about to .* remove: .*\.done\.claim"
    ):
        write(tmp_path / "done", "text")
    (tmp_path / ".done.claim").unlink()
    write(tmp_path / "done", "text")
    assert (tmp_path / "done").read_text() == "text"


def test_an_old_library_without_such_a_rename(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    monkeypatch.setattr(commit.ctypes, "CDLL", lambda *_, **__: object())
    write(tmp_path / "done", "first")
    write(tmp_path / "done", "second")
    assert (tmp_path / "done").read_text() == "first"
