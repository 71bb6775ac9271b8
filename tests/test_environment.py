import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostline._environment import (
    nearest,
    read_list,
    read_patterns,
    read_seconds,
    read_signal,
    read_switch,
    read_whole_number,
    read_word,
    shown,
    text_of,
    unknown_variables,
)

KNOWN = ("HOSTLINE_CANONICAL_HOST", "HOSTLINE_SERVICE_TIMEOUT", "HOSTLINE_WAIT_TIMEOUT")


@pytest.mark.parametrize(
    ("text", "seconds"),
    (
        ("15", 15.0),
        ("0", 0.0),
        ("007", 7.0),
        ("0.5", 0.5),
        (".5", 0.5),
        ("15s", 15.0),
        ("1.5s", 1.5),
        ("500ms", 0.5),
        ("0.5ms", 0.0005),
    ),
)
def test_seconds(text, seconds):
    assert read_seconds(text) == seconds


@pytest.mark.parametrize(
    "text",
    (
        "abc",
        "15m",
        "15 s",
        "15S",
        "15.",
        "1e3",
        "0x10",
        "1_000",
        "1,5",
        "+1",
        "-1",
        "inf",
        "nan",
        "\u0661\u0665",
        "15s5",
        "ms",
    ),
)
def test_what_is_no_number_of_seconds_is_refused_not_cut_off(text):
    with pytest.raises(ValueError, match="is no number of seconds"):
        read_seconds(text)


@pytest.mark.parametrize("text", ("abc", "1.5", "5s", "-1", "+1", "1_0", "1e3", "٣", "9" * 19, "9" * 5000))
def test_what_is_no_whole_number_is_refused(text):
    with pytest.raises(ValueError, match="is no whole number"):
        read_whole_number(text)


def test_whole_number():
    assert read_whole_number("0504") == 504


@pytest.mark.parametrize("text", ("on", "ON", "true", "True", "yes", "1"))
def test_switch_on(text):
    assert read_switch(text) is True


@pytest.mark.parametrize("text", ("off", "Off", "false", "no", "NONE", "0"))
def test_switch_off(text):
    assert read_switch(text) is False


@pytest.mark.parametrize("text", ("y", "enabled", "2", "0.0", "oﬀ", "tru"))
def test_what_is_neither_on_nor_off_is_refused(text):
    with pytest.raises(ValueError, match="is neither on nor off"):
        read_switch(text)


def test_word_in_any_case():
    assert read_word("HTTPS") == "https"


def test_signal_by_number_or_name():
    assert read_signal("23") == 23
    assert read_signal("SIGURG") == "SIGURG"


def test_list_keeps_what_is_empty_so_that_it_is_refused():
    assert read_list("/a, /b ,,") == ("/a", "/b", "", "")


@pytest.mark.parametrize(
    ("text", "patterns"),
    (
        ("api.example.com", ("api.example.com",)),
        ("a.test, *.b.test", ("a.test", "*.b.test")),
        ("a.test,,b.test,", ("a.test", "", "b.test", "")),
        ("/^api/", (re.compile("^api"),)),
        ("a.test, /x{1,2}/ ,b.test", ("a.test", re.compile("x{1,2}"), "b.test")),
        ("/a/b/", (re.compile("a/b"),)),
        (r"/a\/,b/", (re.compile(r"a\/,b"),)),
        ("/a/,/b/", (re.compile("a"), re.compile("b"))),
        ("/a/,", (re.compile("a"), "")),
    ),
)
def test_patterns(text, patterns):
    assert read_patterns(text) == patterns


@pytest.mark.parametrize("text", ("/", "//", "/api", "/api/i", "a.test,/api,b.test", r"/a\/"))
def test_a_regular_expression_must_end(text):
    with pytest.raises(ValueError, match="does not end in a slash"):
        read_patterns(text)


@pytest.mark.parametrize("source", ("a(", "[", "*a", "a{99999999999999999999}", "(?<=a+)b"))
def test_a_malformed_regular_expression_says_why(source):
    with pytest.raises(ValueError, match="has a malformed regular expression") as caught:
        read_patterns(f"a.test,/{source}/")
    assert repr(source) in str(caught.value)


def test_a_warning_that_is_an_error_is_a_malformed_regular_expression():
    with pytest.raises(ValueError, match="nested set"):
        read_patterns("/[[a]/")


def fault_of(read, text):
    try:
        read(text)
    except ValueError as error:
        return str(error)
    return "fine"


@given(st.text())
def test_readers_are_total(text):
    for read in (
        read_seconds,
        read_whole_number,
        read_switch,
        read_word,
        read_signal,
        read_list,
        read_patterns,
    ):
        assert fault_of(read, text).startswith(("is ", "has ", "fine"))


def test_a_blank_variable_is_unset():
    environ = {"A": " 15 ", "B": "", "C": " \t"}
    assert [text_of(environ, name) for name in ("A", "B", "C", "D", None)] == ["15", None, None, None, None]


def test_unknown_variables_are_named_with_the_nearest_known_one():
    environ = {
        "HOSTLINE_SERVICE_TIMEOT": "5",
        "HOSTLINE_CANONICAL_HOST": "example.com",
        "HOSTLINE_EMPTY": "",
        "RACK_TIMEOUT_X": "1",
        "HOST": "x",
    }
    assert list(unknown_variables(environ, KNOWN)) == [
        (
            "HOSTLINE_SERVICE_TIMEOT='5' is no variable of hostline. "
            "The nearest known name is HOSTLINE_SERVICE_TIMEOUT."
        )
    ]


@pytest.mark.parametrize(
    ("name", "known"),
    (
        ("HOSTLINE_SERVICE_TIMEOT", "HOSTLINE_SERVICE_TIMEOUT"),
        ("HOSTLINE_TIMEOUT_SERVICE_TIMEOUT", "HOSTLINE_SERVICE_TIMEOUT"),
        ("HOSTLINE_WAIT", "HOSTLINE_WAIT_TIMEOUT"),
        ("HOSTLINE_HOST", "HOSTLINE_CANONICAL_HOST"),
        ("HOSTLINE_TIMEOUT_SERVICE", "HOSTLINE_SERVICE_TIMEOUT"),
        ("hostline_timeout_seconds", "HOSTLINE_SERVICE_TIMEOUT"),
        ("HOSTLINE_TIMEOUT", "HOSTLINE_SERVICE_TIMEOUT"),
    ),
)
def test_nearest(name, known):
    assert nearest(name, KNOWN) == known


@given(st.text())
def test_there_is_always_a_nearest_name(name):
    assert nearest(name, KNOWN) in KNOWN


class Unprintable:
    def __repr__(self):
        raise RuntimeError


class Lines:
    def __repr__(self):
        return "first\nsecond"


@pytest.mark.parametrize(
    ("value", "text"),
    (
        ("postgres://user:s3cret@db.test/app", "'postgres://***@db.test/app'"),
        ("user:s3cret@host.test", "'***@host.test'"),
        ("//user:s3cret@host.test", "'//***@host.test'"),
        ("s3@cret@host.test", "'***@host.test'"),
        (b"user:s3cret@host.test", "b'***@host.test'"),
        (["http://user:s3cret@a.test", "http://b.test"], "['http://***@a.test', 'http://b.test']"),
        (["a.test", "http://user:s3cret@b.test"], "['***@b.test']"),
        (f"http://user:{'s3cret' * 100}@host.test", "'http://***@host.test'"),
    ),
)
def test_what_may_be_a_password_is_not_shown(value, text):
    assert shown(value) == text


def test_values_are_shown_on_one_short_line():
    assert shown(-1) == "-1"
    assert shown(Lines()) == "first second"
    assert shown("x" * 500) == f"'{'x' * 69}...{'x' * 6}'"


@pytest.mark.parametrize(
    ("value", "text"), ((Unprintable(), "<Unprintable>"), (10**5000, "<int>")), ids=("repr", "int")
)
def test_what_cannot_be_shown_is_named_by_its_type(value, text):
    assert shown(value) == text
