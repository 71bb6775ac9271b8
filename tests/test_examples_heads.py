"""The heads of the examples, as texts; tests/servers/test_examples_servers.py types what they say."""

import re
import sys
import tomllib

import pytest
from packaging.requirements import Requirement

from instructions import EXAMPLES, SERVED, instructions, modules_of

README = (EXAMPLES / "README.md").read_text()
EXTRAS = tomllib.loads((EXAMPLES.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]

#: The distribution of each module that an example or its server is imported from, where the names differ.
DISTRIBUTIONS = {"sse_starlette": "sse-starlette"}


def _brought_by(text):
    """The names of the distributions that a requirement brings, where it is hostline with extras."""
    requirement = Requirement(text)
    if requirement.name != "hostline":
        return {requirement.name}
    brought = (_brought_by(each) for extra in requirement.extras for each in EXTRAS[extra])
    return {"hostline"}.union(*brought)


@pytest.mark.parametrize("example", SERVED, ids=lambda path: path.stem)
def test_what_it_needs_is_what_it_tells_to_install(example):
    head = instructions(example)
    modules = modules_of(example) - sys.stdlib_module_names
    program = re.search(r"\b(gunicorn|uvicorn|hypercorn|waitress)\b", head.command)[1]
    needed = {DISTRIBUTIONS.get(name, name) for name in modules | {program}}
    brought = set().union(*map(_brought_by, head.requirements))
    assert {name.lower() for name in needed} <= {name.lower() for name in brought}


@pytest.mark.parametrize("example", SERVED, ids=lambda path: path.stem)
def test_it_shows_a_normal_answer_and_an_abort(example):
    requests = instructions(example).requests
    assert any(each.status == 200 and each.body == "hello" for each in requests)
    assert any(each.logged and (each.status == 504 or each.is_cut) for each in requests)


def test_the_table_names_every_example():
    named = re.findall(r"^\| \[`([^`]+)`\]\(([^)]+)\) \|", README, re.MULTILINE)
    assert all(name == target and (EXAMPLES / target).exists() for name, target in named)
    folders = {f"{path.name}/" for path in EXAMPLES.iterdir() if (path / "README.md").exists()}
    assert {name for name, _ in named} >= folders | {path.name for path in SERVED}
