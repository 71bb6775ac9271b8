"""The Python blocks of README and docs, run page by page as a reader would type them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOW_TOS = sorted((ROOT / "docs" / "how-to").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)

# What a reader's Django project would bring.
_DJANGO_SETTINGS = """
SECRET_KEY = "only for this test"
ROOT_URLCONF = "project_settings"
ALLOWED_HOSTS = ["*"]
urlpatterns = []
"""


def _blocks(page: Path) -> list[str]:
    return _BLOCK.findall(page.read_text())


def _script(page: Path) -> str:
    """The blocks of a page as one program, each line where it stands on the page."""
    text = page.read_text()
    lines = [""] * (text.count("\n") + 1)
    for match in _BLOCK.finditer(text):
        first = text.count("\n", 0, match.start(1))
        block = match.group(1).splitlines()
        lines[first : first + len(block)] = block
    return "\n".join(lines)


def _id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if _blocks(page)], ids=_id)
def test_python_blocks_run(page, tmp_path):
    (tmp_path / "project_settings.py").write_text(_DJANGO_SETTINGS)
    (tmp_path / "app.py").write_text(_script(page))
    run = subprocess.run(
        [sys.executable, "-W", "error", "app.py"],
        cwd=tmp_path,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "project_settings"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert run.returncode == 0, f"{page.name}: {run.stderr}"


def _lines_to_add() -> list[str]:
    """The code in the second column of README's table, without what its text elides."""
    text = (ROOT / "README.md").read_text()
    table = text.split("| framework | line |\n|---|---|\n")[1].split("\n\n")[0]
    return [code for row in table.splitlines() for code in re.findall(r"`([^`]+)`", row.split("|")[2])]


@pytest.mark.parametrize("line", _lines_to_add())
def test_the_line_to_add_is_one_that_a_how_to_runs(line):
    code = "\n".join(block for page in HOW_TOS for block in _blocks(page))
    beginning = line.removesuffix(", ...]")
    assert re.sub(r"\s+", "", beginning) in re.sub(r"\s+", "", code)


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 110


@pytest.mark.parametrize("page", sorted({*PAGES, *ROOT.glob("*.md")}), ids=_id)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []
