"""Every block of the pages that tell somebody to do something is run, in order, in a new directory.

```bash and ```python blocks are run; a block with a title is written to the file of that name; a
```text block is what the block before it prints, with ... for what differs from run to run.
```console shows what cannot be run here.
"""

import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

DOCS = ROOT / "docs"
FENCE = re.compile(r"^```(\w+)(?: title=\"(.+?)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"\A---\ntest: (\w+)\n---\n")
SAME = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PAGES = [
    ROOT / "README.md",
    DOCS / "start.md",
    *sorted((DOCS / "tutorials").glob("*.md")),
    *sorted((DOCS / "how-to").glob("*.md")),
]


def marked(path):
    """A page with the marker that stands at its top; the README has no room for one."""
    mark = MARK.match(path.read_text())
    slow = mark[1] if mark else "slow" if path.name == "README.md" else ""
    name = path.relative_to(ROOT).with_suffix("").as_posix()
    return pytest.param(path, id=name, marks=[getattr(pytest.mark, slow)] if slow else [])


class Reader:
    """Does what a page says, as its reader would."""

    def __init__(self, place):
        self.place = place
        self.names = {"__name__": "page"}
        self.printed = None

    def take(self, language, title, text):
        if title:
            (self.place / title).parent.mkdir(parents=True, exist_ok=True)
            (self.place / title).write_text(text)
            self.printed = None
        elif language == "bash":
            self.printed = self.bash(text)
        elif language == "python":
            self.printed = self.python(text)
        elif language == "text":
            assert self.printed is not None, f"nothing was run that prints:\n{text}"
            alike = doctest.OutputChecker().check_output(text, self.printed, SAME)
            assert alike, f"the page shows:\n{text}\nit is:\n{self.printed}"

    def bash(self, text):
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.place, capture_output=True, text=True, env={**os.environ, "PATH": path},
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def python(self, text):
        # a file, so that the source of what it defines can be found
        file = self.place / f".block-{len(text)}-{abs(hash(text))}.py"
        file.write_text(text)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(text, file, "exec"), self.names)
        return printed.getvalue()


@pytest.mark.parametrize("page", [marked(page) for page in PAGES])
def test_a_page_does_what_it_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reader = Reader(tmp_path)
    steps = FENCE.findall(page.read_text())
    assert any(language in ("bash", "python") for language, _, _ in steps)
    for step in steps:
        reader.take(*step)


def test_a_page_that_shows_another_output_fails(tmp_path):
    reader = Reader(tmp_path)
    reader.take("python", "", "print(1 + 1, 'and', 0.25)\n")
    reader.take("text", "", "2 and ...\n")
    with pytest.raises(AssertionError, match="the page shows"):
        reader.take("text", "", "3 and ...\n")
    with pytest.raises(AssertionError, match="false"):
        reader.take("bash", "", "false\n")
