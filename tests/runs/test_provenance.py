"""Where numbers come from: the commit of the source, and whether it was changed."""

import subprocess

import pytest

from pipeline.runs.provenance import collect


@pytest.fixture
def repository(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("a = 1\n")
    for words in (
        ("init", "-q"),
        ("add", "mine.py"),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first"),
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "dirty"), [({}, 0), ({"new.py": "b = 2\n"}, 0), ({"mine.py": "a = 2\n"}, 1)]
)
def test_a_source_that_was_changed_since_its_commit_is_said_to_be(repository, changes, dirty):
    for name, text in changes.items():
        (repository / name).write_text(text)
    said = collect({})
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert (said["git_commit"], said["git_dirty"]) == (head.stdout.strip(), dirty)


def test_outside_of_a_repository_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    said = collect({"config.yaml": "a: 1"})
    assert (said["git_commit"], said["git_dirty"], said["config_yaml"]) == ("", 0, "a: 1")
