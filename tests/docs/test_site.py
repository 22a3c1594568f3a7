"""The site: what is generated is complete, and what is built needs no network."""

import importlib.util
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT

import pipeline.testing
from pipeline.store.layout import STATUS

DOCS = ROOT / "docs"
REMOTE = re.compile(
    r"<(?:script|img|link|iframe|source)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^>]*>"
)
IN_CSS = re.compile(r"(?:url\(|@import\s)['\"]?(?:https?:)?//")


def load_generate():
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load_generate()


def test_every_key_of_the_configuration_has_its_meaning():
    config = yaml.safe_load((ROOT / "conf" / "config.yaml").read_text())
    text = generate.configuration()
    for key in set(config) - {"defaults", "hydra"}:
        (row,) = re.findall(rf"^\| `{key}` \|.*$", text, flags=re.MULTILINE)
        assert re.search(r"\| [^|`]{5,}", row), row


def test_every_group_and_option_is_in_the_reference():
    text = generate.groups()
    for path in (ROOT / "conf").glob("*/*.yaml"):
        if path.parent.name != "hydra":
            assert f"### {path.parent.name}={path.stem}\n" in text


def test_every_function_status_and_command_is_in_the_reference():
    assert set(generate.STATUS) == set(STATUS)
    assert "| `rosenbrock` |" in generate.functions()
    assert "### results verify" in generate.commands()


def test_every_public_name_is_in_the_reference():
    page = (DOCS / "reference" / "python.md").read_text()
    for package in (pipeline, pipeline.testing):
        for name in package.__all__:
            place = rf"^::: [\w.]+\.{name}$|`{package.__name__}\.{name}`"
            assert re.search(place, page, flags=re.MULTILINE), name


def test_examples_of_docstrings_are_shown_as_code():
    for path in (ROOT / "pipeline").rglob("*.py"):
        assert "\n    Example:\n" not in path.read_text(), f"{path}: the site knows `Examples:`"


def test_every_part_that_a_page_asks_for_is_made_and_every_part_is_asked_for():
    pages = "".join(page.read_text() for page in DOCS.rglob("*.md"))
    assert set(re.findall(r"<!-- generated: (\S+) -->", pages)) == set(generate.PARTS)


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    assert {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} == set(
        re.findall(r"- (\S+\.md)$", text, flags=re.MULTILINE)
    )


def test_every_link_of_the_readme_leads_somewhere():
    for place in ("README.md", "CONTRIBUTING.md"):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / place).read_text()):
            assert (ROOT / link).exists(), (place, link)


PROBE = """<script>
addEventListener("load", () => {
  const box = document.querySelector(".md-search__input");
  box.focus();
  box.value = "certificate";
  box.dispatchEvent(new KeyboardEvent("keyup", {bubbles: true}));
  setInterval(() => {
    document.title = "found " + document.querySelectorAll(".md-search-result__item").length;
  }, 100);
});
</script>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="the extra [docs] is not installed")
    place = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)]
    if shutil.which("unshare") and not subprocess.run(["unshare", "-n", "true"]).returncode:
        build = ["unshare", "-n", *build]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return place


@pytest.mark.slow
def test_the_site_is_built_strictly_without_a_network_and_needs_none(site):
    for page in site.rglob("*.html"):
        found = [tag for tag in REMOTE.findall(page.read_text()) if 'rel="canonical"' not in tag]
        assert not found, (page, found)
        assert "<p>import " not in page.read_text(), (
            f"{page}: the example of a docstring is no code"
        )
    for sheet in site.rglob("*.css"):
        assert not IN_CSS.search(sheet.read_text()), sheet


@pytest.mark.slow
def test_the_search_works_where_the_site_is_opened_from_disk(site, tmp_path):
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("chromium not found")
    page = site / "probe.html"
    page.write_text((site / "index.html").read_text().replace("</body>", f"{PROBE}</body>"))
    done = subprocess.run(
        [program, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000",
         f"--user-data-dir={tmp_path}", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    found = re.search(r"<title>found (\d+)</title>", done.stdout)
    assert found, done.stderr[-2000:]
    assert int(found[1]) >= 3
