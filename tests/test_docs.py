"""The Python blocks of README and docs, run page by page as a reader would type them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs_pages import PAGES, README, ROOT, blocks_of

pytestmark = pytest.mark.timed

HOW_TOS = sorted((ROOT / "docs" / "how-to").glob("*.md"))

# What a reader's Django project would bring.
_DJANGO_SETTINGS = """
SECRET_KEY = "only for this test"
ROOT_URLCONF = "project_settings"
ALLOWED_HOSTS = ["*"]
urlpatterns = []
"""


def _blocks(page: Path) -> list[str]:
    return [block.text for block in blocks_of(page) if block.language == "python"]


def _script(page: Path) -> str:
    """The blocks of a page as one program, each line where it stands on the page."""
    lines = [""] * (page.read_text().count("\n") + 1)
    for block in blocks_of(page):
        if block.language == "python":
            code = block.text.splitlines()
            lines[block.line - 1 : block.line - 1 + len(code)] = code
    return "\n".join(lines)


def _id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if _blocks(page)], ids=_id)
def test_python_blocks_run(page, tmp_path):
    _run(page, tmp_path)


def test_the_tutorial_prints_what_it_says(tmp_path):
    printed = _run(ROOT / "docs" / "tutorial.md", tmp_path)
    told = [block.text for block in blocks_of(ROOT / "docs" / "tutorial.md") if block.language == "text"]
    # What is logged is told by another thread, and not quite the same each time.
    told = [text for text in told if not text.startswith("source=hostline")]
    assert told
    assert [text for text in told if text not in printed] == []


def _run(page: Path, folder: Path) -> str:
    """What the page's program prints."""
    (folder / "project_settings.py").write_text(_DJANGO_SETTINGS)
    (folder / "app.py").write_text(_script(page))
    run = subprocess.run(
        [sys.executable, "-W", "error", "app.py"],
        cwd=folder,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "project_settings"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert run.returncode == 0, f"{page.name}: {run.stderr}"
    return run.stdout


def _lines_to_add() -> list[str]:
    """The code in the second column of README's table, without what its text elides."""
    text = README.read_text()
    table = text.split("| framework | line |\n|---|---|\n")[1].split("\n\n")[0]
    return [code for row in table.splitlines() for code in re.findall(r"`([^`]+)`", row.split("|")[2])]


@pytest.mark.parametrize("line", _lines_to_add())
def test_the_line_to_add_is_one_that_a_how_to_runs(line):
    code = "\n".join(block for page in HOW_TOS for block in _blocks(page))
    beginning = line.removesuffix(", ...]")
    assert re.sub(r"\s+", "", beginning) in re.sub(r"\s+", "", code)


def test_readme_is_short():
    assert len(README.read_text().splitlines()) <= 110


@pytest.mark.parametrize("page", sorted({*PAGES, *ROOT.glob("*.md")}), ids=_id)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#:\s]+?)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []
