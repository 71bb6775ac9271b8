"""What the page for Ruby teams says of the gems, against the settings and the gems' own answers."""

import json
import re
from pathlib import Path

import pytest

from docs_pages import ROOT
from hostline.settings import CanonicalHostSettings, RequestTimeoutSettings

PAGE = (ROOT / "docs" / "how-to" / "from-ruby.md").read_text()
VECTORS = [
    json.loads(line)
    for path in sorted((Path(__file__).parent / "vectors").glob("*.jsonl"))
    for line in path.read_text().splitlines()
]
#: How the page begins to say what came out.
WORDS = {"redirect": "redirected", "pass": "passes", "reject": "400", "run": "run", "expired": "expired"}


def _table(head: str) -> list[list[str]]:
    """The rows of all tables with this head, cell by cell."""
    tables = [rest.split("\n\n")[0] for rest in PAGE.split(f"| {head} |")[1:]]
    rows = [row for table in tables for row in table.splitlines()[2:]]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


DIFFERENCES = _table("request | gem | hostline | the rule")


def test_the_variables_are_those_that_are_read():
    told = {
        tuple(re.findall(r"`(\w+)`", f"{row[0]}{row[1]}"))
        for row in _table("gem's variable | hostline's | default")
    }
    settings = (*CanonicalHostSettings.settings(), *RequestTimeoutSettings.settings())
    assert told == {(each.ruby_variable, each.variable) for each in settings if each.ruby_variable}


def test_the_defaults_are_those_of_the_settings():
    told = {row[1].strip("`"): row[2] for row in _table("gem's variable | hostline's | default")}
    settings = (*CanonicalHostSettings.settings(), *RequestTimeoutSettings.settings())
    for each in settings:
        if each.ruby_variable and each.default:
            assert told[each.variable] == str(each.default)
        elif each.ruby_variable:
            assert told[each.variable].startswith(("off", "none"))


def test_every_rule_by_which_hostline_answers_otherwise_is_told():
    rules = {vector["why"] for vector in VECTORS if vector["why"] and vector.get("gem")}
    assert {row[3] for row in DIFFERENCES} == rules


@pytest.mark.parametrize("row", DIFFERENCES, ids=lambda row: row[0])
def test_what_came_out_is_what_the_gem_and_hostline_answer(row):
    _, gem, hostline, rule = row
    outcomes = {
        (WORDS[vector["gem"]["outcome"]], WORDS[vector["hostline"]["outcome"]])
        for vector in VECTORS
        if vector["why"] == rule and vector.get("gem", {}).get("outcome") in WORDS
    }
    assert (re.split(r"[,\s]", gem)[0], re.split(r"[,\s]", hostline)[0]) in outcomes


def test_the_number_of_requests_is_right():
    assert f"run with {sum(bool(vector.get('gem')) for vector in VECTORS)} requests" in PAGE


def test_the_arguments_that_are_named_exist():
    names = {each.name for each in (*CanonicalHostSettings.settings(), *RequestTimeoutSettings.settings())}
    cells = [row[1] for row in _table("gem | hostline | what differs")]
    named = {name for cell in cells for name in re.findall(r"`(\w+)=", cell)}
    assert named
    assert named - names == set()
