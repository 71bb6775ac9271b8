"""The blocks of README and docs that are not Python: they parse, and what they set may be set."""

import configparser
import json
import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs_pages import PAGES, ROOT, Block, assignments, blocks, proxy, variables_in
from hostline.settings import CanonicalHostSettings, RequestTimeoutSettings, check_environment

_SETTINGS = (*CanonicalHostSettings.settings(), *RequestTimeoutSettings.settings())
#: A setting without a variable has a name in Django's settings all the same.
_DJANGO = {f"HOSTLINE_CANONICAL_{each.name.upper()}" for each in CanonicalHostSettings.settings()}
_NAMES = {name for each in _SETTINGS for name in (each.variable, each.ruby_variable) if name} | _DJANGO
_NAME = re.compile(r"\b(?:HOSTLINE|RACK_TIMEOUT)_[A-Z_]*[A-Z]\b(?!_|\*)")


def _ini(text: str) -> Any:
    parser = configparser.ConfigParser()
    parser.read_string(text)
    return {name: dict(section) for name, section in parser.items()}


_READERS: dict[str, Callable[[str], Any]] = {
    "ini": _ini,
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_variable_that_is_named_exists(page):
    assert set(_NAME.findall(page.read_text())) - _NAMES == set()


@pytest.mark.parametrize("block", blocks(*_READERS), ids=str)
def test_configuration_parses_and_sets_what_may_be_set(block):
    data = _READERS[block.language](block.text)
    assert data
    variables = {name: value for name, value in variables_in(data) if _NAME.fullmatch(name)}
    assert set(variables) == set(_NAME.findall(block.text))
    check_environment(variables)


@pytest.mark.parametrize("block", blocks("sh"), ids=str)
def test_shell_blocks_are_shell_and_set_what_may_be_set(block):
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True, timeout=30)
    variables = assignments(block.text)
    assert set(variables) >= set(_NAME.findall(block.text))
    check_environment(variables)


def _make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_target_of_make_that_is_named_exists():
    named = {
        target
        for block in blocks("sh")
        for _, words in block.commands
        if words[0] == "make"
        for target in words[1:]
    }
    inline = {name for page in PAGES for name in re.findall(r"`make ([a-z-]+)`", page.read_text())}
    assert named
    assert (named | inline) - _make_targets() == set()


def _is_python(block: Block) -> bool:
    return "import " in block.text


@pytest.mark.parametrize("block", [block for block in blocks("diff") if _is_python(block)], ids=str)
def test_what_a_change_leads_to_runs(block, tmp_path):
    lines = [line[2:] for line in block.text.splitlines() if not line.startswith("-")]
    exec(compile("\n".join(lines), str(block), "exec"), {"__name__": "app"})


def _proxy(name: str) -> str:
    found = proxy(name)
    if found is None:
        pytest.skip(f"{name} is not here, so its configuration in the docs is not checked")
    return found


@pytest.mark.parametrize("block", blocks("nginx"), ids=str)
def test_nginx_takes_it(block, tmp_path):
    server = block.text if "server {" in block.text else f"server {{ listen 127.0.0.1:8099; {block.text} }}"
    folders = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = tmp_path / "nginx.conf"  # to be looked at: a port that is taken is no matter then
    configuration.write_text(
        f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ access_log off; {folders} {server} }}"
    )
    _check([_proxy("nginx"), "-t", "-p", str(tmp_path), "-c", str(configuration)])


@pytest.mark.parametrize("block", blocks("haproxy"), ids=str)
def test_haproxy_takes_it(block, tmp_path):
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(block.text)
    _check([_proxy("haproxy"), "-c", "-f", str(configuration)])


def _check(command: list[str]) -> None:
    run = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert run.returncode == 0, run.stdout + run.stderr


def _slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and MyST make it."""
    text = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def _anchors(page: Path) -> set[str]:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return {_slug(heading) for heading in re.findall(r"^#+ (.+)$", prose, re.MULTILINE)}


@pytest.mark.parametrize("page", sorted({*PAGES, *ROOT.glob("*.md")}), ids=lambda page: page.name)
def test_links_to_a_heading_lead_to_one(page):
    wanted = re.findall(r"\]\(([^)#:\s]*)#([^)\s]+)\)", page.read_text())
    missing = [
        (target, anchor)
        for target, anchor in wanted
        if anchor not in _anchors(page.parent / target if target else page)
    ]
    assert missing == []
