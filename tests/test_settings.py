import dataclasses
import logging
import math
import re
import signal
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal
from http import HTTPStatus
from types import EllipsisType, NoneType
from typing import get_args, get_type_hints

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostline import CanonicalHostSettings, RequestTimeoutSettings, SettingsError
from hostline._authority import Authority
from hostline._environment import Given
from hostline._kinds import check_seconds
from hostline.settings import (
    CanonicalHostKeywords,
    CanonicalHostOptions,
    RequestTimeoutOptions,
    check_environment,
)

BOTH = (CanonicalHostSettings, RequestTimeoutSettings)
VARIABLES = [(cls, each.name, each.variable) for cls in BOTH for each in cls.settings() if each.variable]
RUBY_VARIABLES = [
    (cls, each.name, each.ruby_variable) for cls in BOTH for each in cls.settings() if each.ruby_variable
]
SECONDS = ("service_timeout", "wait_timeout", "wait_overtime", "stream_timeout", "warn_after")
SPEAK_FOR_THEMSELVES = {*SECONDS, "service_past_wait", "term_on_timeout"}


def call(*_args):
    """What stands for a user's function."""


def load(arguments=None, /, **environ):
    """The settings of the class that has these arguments and variables, of timeouts in doubt."""
    arguments = arguments or {}
    names = " ".join([*arguments, *environ])
    canonical = "CANONICAL" in names or set(arguments) - set(RequestTimeoutOptions.__annotations__)
    return (CanonicalHostSettings if canonical else RequestTimeoutSettings).load(arguments, environ)


def problems_of(arguments=None, /, **environ):
    with pytest.raises(SettingsError) as caught:
        load(arguments, **environ)
    return caught.value.problems


def problem_of(arguments=None, /, **environ):
    [problem] = problems_of(arguments, **environ)
    return problem


# Defaults, sources, precedence


def test_defaults_of_the_canonical_host():
    assert dataclasses.asdict(CanonicalHostSettings.load({}, {})) == {
        "host": None,
        "host_for": None,
        "ignore": (),
        "only": (),
        "cache_control": None,
        "status": 301,
        "preserve_method": True,
        "scheme": None,
        "exempt_paths": (),
        "ip_hosts": "pass",
        "trust_forwarded_host": False,
        "trust_forwarded_proto": False,
        "report_only": False,
        "observers": ("log",),
    }


def test_defaults_of_the_timeout():
    assert dataclasses.asdict(RequestTimeoutSettings.load({}, {})) == {
        "service_timeout": 15.0,
        "wait_timeout": 30.0,
        "wait_overtime": 60.0,
        "service_past_wait": False,
        "term_on_timeout": 0,
        "stream_timeout": None,
        "warn_after": None,
        "mode": "respond",
        "timeout_for": None,
        "trust_timeout_header": (),
        "exempt_paths": (),
        "status": 504,
        "body": None,
        "content_type": None,
        "observers": ("log",),
        "signal": signal.SIGURG,
        "deferral_limit": 1.0,
        "shield_limit": 5.0,
    }


@pytest.mark.parametrize("cls", BOTH)
def test_the_constructor_has_the_same_defaults(cls):
    assert cls() == cls.load({}, {})


@pytest.mark.parametrize("cls", BOTH)
def test_settings_are_immutable_and_have_no_dict(cls):
    settings = cls()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.status = 500
    assert not hasattr(settings, "__dict__")


@pytest.mark.parametrize(
    ("arguments", "environ", "timeout", "source"),
    (
        (
            {"service_timeout": 1},
            {"HOSTLINE_SERVICE_TIMEOUT": "2", "RACK_TIMEOUT_SERVICE_TIMEOUT": "3"},
            1.0,
            "argument",
        ),
        (
            {"service_timeout": ...},
            {"HOSTLINE_SERVICE_TIMEOUT": "2", "RACK_TIMEOUT_SERVICE_TIMEOUT": "3"},
            2.0,
            "HOSTLINE_SERVICE_TIMEOUT",
        ),
        (
            {},
            {"HOSTLINE_SERVICE_TIMEOUT": "  ", "RACK_TIMEOUT_SERVICE_TIMEOUT": "3"},
            3.0,
            "RACK_TIMEOUT_SERVICE_TIMEOUT",
        ),
        ({}, {"HOSTLINE_SERVICE_TIMEOUT": ""}, 15.0, "default"),
        ({"service_timeout": None}, {"HOSTLINE_SERVICE_TIMEOUT": "2"}, None, "argument"),
        (
            {},
            {"HOSTLINE_SERVICE_TIMEOUT": "off", "RACK_TIMEOUT_SERVICE_TIMEOUT": "3"},
            None,
            "HOSTLINE_SERVICE_TIMEOUT",
        ),
    ),
    ids=("argument", "hostline", "ruby", "default", "argument-off", "variable-off"),
)
def test_precedence(arguments, environ, timeout, source):
    assert RequestTimeoutSettings.load(arguments, environ).service_timeout == timeout
    assert RequestTimeoutSettings.sources(arguments, environ)["service_timeout"] == source


def test_an_overruled_variable_is_not_read():
    assert load({"service_timeout": 1}, HOSTLINE_SERVICE_TIMEOUT="abc").service_timeout == 1
    assert load(HOSTLINE_WAIT_TIMEOUT="1", RACK_TIMEOUT_WAIT_TIMEOUT="abc").wait_timeout == 1


def test_the_environment_of_the_process_is_the_default(monkeypatch):
    monkeypatch.setenv("HOSTLINE_SERVICE_TIMEOUT", "3")
    monkeypatch.setenv("CANONICAL_HOST", "example.com")
    assert RequestTimeoutSettings.load({}).service_timeout == 3
    assert RequestTimeoutSettings.sources({})["service_timeout"] == "HOSTLINE_SERVICE_TIMEOUT"
    assert CanonicalHostSettings.load({}).host == Authority("example.com", None)
    assert RequestTimeoutSettings().service_timeout == 15


def test_sources_name_every_field_in_order():
    for cls in BOTH:
        assert list(cls.sources({}, {})) == [each.name for each in dataclasses.fields(cls)]


# What a setting says of itself


@pytest.mark.parametrize(
    ("options", "cls"), ((CanonicalHostOptions, BOTH[0]), (RequestTimeoutOptions, BOTH[1])), ids=str
)
def test_the_options_are_exactly_the_fields(options, cls):
    assert set(get_type_hints(options)) == {each.name for each in dataclasses.fields(cls)}
    assert options.__required_keys__ == frozenset()
    assert all(EllipsisType in get_args(hint) for hint in get_type_hints(options).values())


def test_the_keywords_are_all_but_the_host():
    assert set(CanonicalHostOptions.__annotations__) - set(CanonicalHostKeywords.__annotations__) == {"host"}


@pytest.mark.parametrize("cls", BOTH)
def test_what_may_be_none_says_so(cls):
    options = get_type_hints(CanonicalHostOptions if cls is CanonicalHostSettings else RequestTimeoutOptions)
    for name, hint in options.items():
        if NoneType in get_args(hint):
            assert cls.load({name: None}, {}) is not None


@pytest.mark.parametrize(("cls", "name", "variable"), VARIABLES)
def test_variables_follow_the_rule(cls, name, variable):
    prefix = "HOSTLINE_CANONICAL_" if cls is CanonicalHostSettings else "HOSTLINE_TIMEOUT_"
    name_there = name.removeprefix("timeout_").upper()  # not HOSTLINE_TIMEOUT_TIMEOUT_FOR
    assert variable == ("HOSTLINE_" if name in SPEAK_FOR_THEMSELVES else prefix) + name_there


def test_only_functions_have_no_variable():
    without = [each.name for cls in BOTH for each in cls.settings() if each.variable is None]
    assert without == ["host_for"]


def test_ruby_variables_are_those_of_the_gems():
    assert {name: variable for _, name, variable in RUBY_VARIABLES} == {
        "host": "CANONICAL_HOST",
        "service_timeout": "RACK_TIMEOUT_SERVICE_TIMEOUT",
        "wait_timeout": "RACK_TIMEOUT_WAIT_TIMEOUT",
        "wait_overtime": "RACK_TIMEOUT_WAIT_OVERTIME",
        "service_past_wait": "RACK_TIMEOUT_SERVICE_PAST_WAIT",
        "term_on_timeout": "RACK_TIMEOUT_TERM_ON_TIMEOUT",
    }


def test_every_setting_is_documented():
    for cls in BOTH:
        for each in cls.settings():
            assert each.doc.endswith(".")
            assert each.kind.argument
            assert bool(each.kind.text) == bool(each.variable)
            assert each.unit == ("seconds" if each.name in SECONDS else each.kind.unit)
    [row] = [each for each in RequestTimeoutSettings.settings() if each.name == "term_on_timeout"]
    assert (row.default, row.unit) == (0, "timeouts")


# Seconds and counts


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize(
    ("value", "seconds"),
    (
        (20, 20.0),
        (0.25, 0.25),
        (timedelta(minutes=1, milliseconds=500), 60.5),
        (10**9, 1e9),
        (0, None),
        (0.0, None),
        (-0.0, None),
        (False, None),
        (None, None),
        (timedelta(0), None),
    ),
    ids=repr,
)
def test_seconds_as_an_argument(name, value, seconds):
    result = getattr(load({name: value}), name)
    assert (result, type(result)) == (seconds, type(seconds))


@pytest.mark.parametrize(
    ("value", "fault"),
    (
        (-1, "is negative"),
        (-math.inf, "is negative"),
        (timedelta(microseconds=-1), "is negative"),
        (math.nan, "is no finite number"),
        (math.inf, "is no finite number"),
        (10**400, "is no finite number"),
        (10**5000, "is no finite number"),
        (True, "is no number"),
        ("15", "is no number"),
        ("off", "is no number"),
        (Decimal(1), "is no number"),
        ([15], "is no number"),
        (b"15", "is no number"),
    ),
    ids=lambda value: repr(value)[:20] if not isinstance(value, int) else hex(value)[:10],
)
def test_wrong_seconds_as_an_argument(value, fault):
    problem = problem_of({"service_timeout": value})
    assert problem.startswith("service_timeout=")
    assert fault in problem
    assert "Write a number of seconds or a timedelta" in problem


@pytest.mark.parametrize(
    ("text", "seconds"),
    (
        (" 15 ", 15.0),
        ("500ms", 0.5),
        ("1.5s", 1.5),
        ("0.0", None),
        ("0ms", None),
        ("0", None),
        ("OFF", None),
        ("false", None),
        ("No", None),
        ("none", None),
    ),
)
def test_seconds_in_a_variable(text, seconds):
    assert load(HOSTLINE_SERVICE_TIMEOUT=text).service_timeout == seconds


@pytest.mark.parametrize(
    "text", ("abc", "-1", "inf", "nan", "1e3", "15m", "15 s", "\u0661\u0665", "on", "true", "9" * 400)
)
def test_wrong_seconds_in_a_variable(text):
    problem = problem_of(HOSTLINE_SERVICE_TIMEOUT=text)
    assert problem.startswith("HOSTLINE_SERVICE_TIMEOUT=")
    assert "Write a number of seconds such as 15, 0.5, 15s or 500ms; 0 and off switch it off." in problem


def test_the_sentence_names_argument_value_and_remedy():
    assert problem_of({"service_timeout": -1}) == (
        "service_timeout=-1 is negative. Write a number of seconds or a timedelta, "
        "such as 15 or 0.5; 0, False and None switch it off."
    )


@pytest.mark.parametrize(
    ("value", "seconds"),
    ((2, 2.0), (timedelta(seconds=1), 1.0), (0, None), (False, None), (None, None)),
    ids=repr,
)
def test_seconds_that_are_no_setting(value, seconds):
    assert check_seconds("the answer", value) == seconds


@pytest.mark.parametrize("value", (-1, True, "15", math.nan), ids=repr)
def test_wrong_seconds_that_are_no_setting(value):
    with pytest.raises(
        SettingsError, match=r"^the answer=.+ is .+\. Write a number of seconds or a timedelta, "
    ):
        check_seconds("the answer", value)


@pytest.mark.parametrize(("value", "count"), ((0, 0), (3, 3), (False, 0), (None, 0)))
def test_count_as_an_argument(value, count):
    result = load({"term_on_timeout": value}).term_on_timeout
    assert (result, type(result)) == (count, int)


@pytest.mark.parametrize("value", (-1, True, 1.0, "3", timedelta(3)), ids=repr)
def test_wrong_count_as_an_argument(value):
    assert problem_of({"term_on_timeout": value}).startswith(f"term_on_timeout={value!r} is ")


@pytest.mark.parametrize("variable", ("HOSTLINE_TERM_ON_TIMEOUT", "RACK_TIMEOUT_TERM_ON_TIMEOUT"))
def test_count_in_a_variable(variable):
    assert [load(**{variable: text}).term_on_timeout for text in ("5", "0", "off")] == [5, 0, 0]
    for text in ("on", "5s", "1.5", "-1"):
        assert problem_of(**{variable: text}).startswith(f"{variable}={text!r} is no whole number.")


# Switches, words, texts


@pytest.mark.parametrize(
    "name",
    ("preserve_method", "trust_forwarded_host", "trust_forwarded_proto", "report_only", "service_past_wait"),
)
def test_switches(name):
    cls = RequestTimeoutSettings if name == "service_past_wait" else CanonicalHostSettings
    [variable] = [variable for _, field, variable in VARIABLES if field == name]
    for value, text in ((True, "Yes"), (False, "off")):
        assert getattr(cls.load({name: value}, {}), name) is value
        assert getattr(cls.load({}, {variable: text}), name) is value
    for value in (0, 1, "on", 1.0):
        assert problem_of({name: value}).startswith(f"{name}={value!r} is neither True nor False.")
    assert problem_of(**{variable: "maybe"}) == f"{variable}='maybe' is neither on nor off. Write on or off."


def test_none_is_no_switch():
    assert (
        problem_of({"report_only": None})
        == "report_only=None is neither True nor False. Write True or False."
    )


@pytest.mark.parametrize(
    ("environ", "trusted"),
    (
        ({}, False),
        ({"DYNO": "web.1"}, True),
        ({"DYNO": "web.1", "CI": "true"}, False),
        ({"DYNO": ""}, False),
        ({"DYNO": "web.1", "HOSTLINE_CANONICAL_TRUST_FORWARDED_PROTO": "off"}, False),
        ({"HOSTLINE_CANONICAL_TRUST_FORWARDED_PROTO": "on"}, True),
    ),
)
def test_the_forwarded_scheme_is_trusted_on_heroku(environ, trusted):
    assert CanonicalHostSettings.load({}, environ).trust_forwarded_proto is trusted
    assert CanonicalHostSettings.load({"trust_forwarded_proto": True}, environ).trust_forwarded_proto is True


def test_the_constructor_looks_for_heroku_too(monkeypatch):
    monkeypatch.setenv("DYNO", "web.1")
    assert CanonicalHostSettings().trust_forwarded_proto is True
    assert CanonicalHostSettings.load({}, {}).trust_forwarded_proto is False


@pytest.mark.parametrize(
    ("name", "variable", "words"),
    (
        ("mode", "HOSTLINE_TIMEOUT_MODE", ("respond", "raise", "report")),
        ("ip_hosts", "HOSTLINE_CANONICAL_IP_HOSTS", ("pass", "redirect")),
        ("scheme", "HOSTLINE_CANONICAL_SCHEME", ("http", "https")),
    ),
)
def test_words(name, variable, words):
    for word in words:
        assert getattr(load({name: word}), name) == word
        assert getattr(load(**{variable: word.upper()}), name) == word
    for value in ("x", words[0].upper(), "", 5, [words[0]]):
        assert problem_of({name: value}).startswith(
            f"{name}={value!r} is not allowed. Write {words[0]!r} or "
        )
    assert problem_of(**{variable: "x"}).startswith(f"{variable}='x' is not allowed. Write {words[0]} or ")


def test_a_scheme_may_be_off_and_a_mode_may_not():
    assert load({"scheme": None}).scheme is None
    assert load(HOSTLINE_CANONICAL_SCHEME="off").scheme is None
    assert problem_of({"mode": None}) == "mode=None is not allowed. Write 'respond' or 'raise' or 'report'."
    assert problem_of(HOSTLINE_TIMEOUT_MODE="off").startswith("HOSTLINE_TIMEOUT_MODE='off' is not allowed.")


def test_redirect_status():
    assert [load({"host": None, "status": status}).status for status in (301, 302, 307, 308)] == [
        301,
        302,
        307,
        308,
    ]
    assert type(load({"host": None, "status": HTTPStatus.FOUND}).status) is int
    assert load(HOSTLINE_CANONICAL_STATUS="308").status == 308
    for value in (200, 303, True, "301", 301.0, None):
        problem = problem_of({"host": None, "status": value})
        assert problem == f"status={value!r} is no status of a redirect. Write 301, 302, 307 or 308."
    assert problem_of(HOSTLINE_CANONICAL_STATUS="30x").startswith(
        "HOSTLINE_CANONICAL_STATUS='30x' is no whole number."
    )


def test_error_status():
    assert [load({"status": status}).status for status in (400, 504, 599)] == [400, 504, 599]
    assert type(load({"status": HTTPStatus.SERVICE_UNAVAILABLE}).status) is int
    assert load(HOSTLINE_TIMEOUT_STATUS="503").status == 503
    for value in (399, 600, True, "504", None):
        assert problem_of({"status": value}).startswith(f"status={value!r} is no status of an error.")


def test_cache_control():
    assert load({"cache_control": " max-age=3600 "}).cache_control == "max-age=3600"
    assert load(HOSTLINE_CANONICAL_CACHE_CONTROL="no-cache, no-store").cache_control == "no-cache, no-store"
    assert load(HOSTLINE_CANONICAL_CACHE_CONTROL="off").cache_control is None


@pytest.mark.parametrize(
    "value", ("", " ", "a\r\nSet-Cookie: b", "a\0", "é", 3600, False, b"no-cache"), ids=repr
)
def test_wrong_cache_control(value):
    assert problem_of({"cache_control": value}).startswith(f"cache_control={value!r} ")


@pytest.mark.parametrize("body", ("late", b"late", call, ""), ids=repr)
def test_body(body):
    assert load({"body": body}).body is body
    assert load({"body": body, "content_type": "text/plain"}).content_type == "text/plain"


def test_body_in_a_variable():
    settings = load(
        HOSTLINE_TIMEOUT_BODY=" Zu spät. ", HOSTLINE_TIMEOUT_CONTENT_TYPE="text/plain; charset=utf-8"
    )
    assert (settings.body, settings.content_type) == ("Zu spät.", "text/plain; charset=utf-8")


def test_wrong_body():
    assert problem_of({"body": 5}).startswith("body=5 is no body.")


@pytest.mark.parametrize("value", ("html", "text/", "/plain", "text/a/b", "text /x", "a\n/b", 5), ids=repr)
def test_wrong_content_type(value):
    assert problem_of({"body": "x", "content_type": value}).startswith(f"content_type={value!r} ")


def test_a_content_type_needs_a_body():
    assert problem_of({"content_type": "text/plain"}) == (
        "content_type='text/plain' has no body to describe. Give body as well, or leave this out."
    )
    assert problem_of({"body": None}, HOSTLINE_TIMEOUT_CONTENT_TYPE="text/plain") == (
        "HOSTLINE_TIMEOUT_CONTENT_TYPE='text/plain' has no body to describe. "
        "Give HOSTLINE_TIMEOUT_BODY as well, or leave this out."
    )
    assert load({"body": None, "content_type": None}).content_type is None
    with pytest.raises(SettingsError):
        RequestTimeoutSettings(content_type="text/plain")


def test_a_content_type_beside_a_wrong_body_is_not_blamed():
    assert problem_of({"body": 5, "content_type": "text/plain"}).startswith("body=5")


@pytest.mark.parametrize("name", ("host_for", "timeout_for"))
def test_callables(name):
    assert getattr(load({name: call}), name) is call
    assert getattr(load({name: None}), name) is None
    assert problem_of({name: "x"}).startswith(f"{name}='x' cannot be called. Write a function, ")


@pytest.mark.parametrize(
    ("value", "observers"),
    (
        ("log", ("log",)),
        (call, (call,)),
        (["log", call], ("log", call)),
        ((), ()),
        (None, ()),
    ),
    ids=repr,
)
def test_observers(value, observers):
    assert load({"observers": value}).observers == observers


def test_observers_in_a_variable():
    assert load(HOSTLINE_TIMEOUT_OBSERVERS="log").observers == ("log",)
    assert load(HOSTLINE_TIMEOUT_OBSERVERS="off").observers == ()


def test_an_observer_is_no_async_function():
    async def observer(event):
        pass

    class Observer:
        async def __call__(self, event):
            pass

    for each in (observer, Observer()):
        problem = problem_of({"observers": [each]})
        assert (
            " in observers is an async function, which nobody would wait for. Write 'log', 'prometheus'"
            in problem
        )


def test_an_observer_is_no_class():
    class Observer:
        pass

    problem = problem_of({"observers": ["log", Observer]})
    assert problem.endswith(
        "Observer'> in observers is a class, which each event would make an object of. Write Observer()."
    )


def test_a_name_of_an_observer_counts_once():
    assert " has log twice. Write 'log', " in problem_of({"observers": ["log", call, "log"]})
    assert load({"observers": ["log", call, call]}).observers == ("log", call, call)
    assert problem_of(HOSTLINE_CANONICAL_OBSERVERS="log,log") == (
        "HOSTLINE_CANONICAL_OBSERVERS='log,log' has log twice. "
        "Write log, prometheus and opentelemetry, or some of them, or off."
    )


def test_sentry_is_told_of_no_host():
    assert problem_of(HOSTLINE_CANONICAL_OBSERVERS="log,sentry") == (
        "'sentry' in HOSTLINE_CANONICAL_OBSERVERS would be told of nothing here. "
        "Write log, prometheus and opentelemetry, or some of them, or off."
    )
    assert load(HOSTLINE_TIMEOUT_OBSERVERS="log,sentry").observers == ("log", "sentry")


def test_wrong_observers():
    remedy = (
        "Write 'log', 'prometheus', 'opentelemetry', 'sentry', a callable, or a list of them; "
        "() switches them off."
    )
    assert problems_of({"observers": ["lgo", call, 5]}) == (
        f"'lgo' in observers is no observer. {remedy}",
        f"5 in observers is no observer. {remedy}",
    )
    assert problem_of(HOSTLINE_TIMEOUT_OBSERVERS="log,statsd") == (
        "'statsd' in HOSTLINE_TIMEOUT_OBSERVERS is no observer. "
        "Write log, prometheus, opentelemetry and sentry, or some of them, or off."
    )


# Signals


@pytest.mark.parametrize(
    "value", (signal.SIGUSR1, int(signal.SIGUSR1), "SIGUSR1", "USR1", "sigusr1"), ids=repr
)
def test_signal(value):
    assert load({"signal": value}).signal is signal.SIGUSR1


def test_signal_in_a_variable():
    for text in ("SIGUSR1", "usr1", str(int(signal.SIGUSR1))):
        assert load(HOSTLINE_TIMEOUT_SIGNAL=text).signal is signal.SIGUSR1


@pytest.mark.parametrize(
    ("value", "fault"),
    (
        ("SIGKILL", "cannot be caught"),
        (signal.SIGSTOP, "cannot be caught"),
        (9, "cannot be caught"),
        (0, "is no signal of this system"),
        (-1, "is no signal of this system"),
        (10**6, "is no signal of this system"),
        ("SIGNOTHING", "is no signal"),
        ("SIG_DFL", "is no signal"),
        ("", "is no signal"),
        ("23", "is no signal"),
        (True, "is no signal"),
        (23.0, "is no signal"),
        (None, "is no signal"),
    ),
    ids=repr,
)
def test_wrong_signal(value, fault):
    problem = problem_of({"signal": value})
    assert problem.startswith("signal=")
    assert fault in problem
    assert "such as signal.SIGURG" in problem


def test_wrong_signal_in_a_variable():
    for text in ("KILL", "9", "off", "٢٣"):
        assert problem_of(HOSTLINE_TIMEOUT_SIGNAL=text).startswith(f"HOSTLINE_TIMEOUT_SIGNAL={text!r} ")


def test_a_system_without_sigurg_has_no_signal_by_default():
    program = """
import signal
del signal.SIGURG, signal.SIGKILL, signal.SIGSTOP
from hostline.settings import RequestTimeoutSettings
print(RequestTimeoutSettings().signal, RequestTimeoutSettings.load({"signal": "TERM"}, {}).signal)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"0 {int(signal.SIGTERM)}\n"


def test_no_signal_is_allowed_where_it_is_the_default():
    [setting] = [each for each in RequestTimeoutSettings.settings() if each.name == "signal"]
    assert Given(setting._replace(default=0), 0).settled() == 0
    assert Given(setting._replace(default=0), "0", "HOSTLINE_TIMEOUT_SIGNAL").settled() == 0


# Paths


@pytest.mark.parametrize(
    ("value", "paths"),
    (
        ("/healthz", ("/healthz",)),
        (["/healthz", "/.well-known/"], ("/healthz", "/.well-known/")),
        ({"/healthz"}, ("/healthz",)),
        ((), ()),
        (None, ()),
    ),
    ids=repr,
)
@pytest.mark.parametrize("cls", BOTH)
def test_exempt_paths(cls, value, paths):
    assert cls.load({"exempt_paths": value}, {}).exempt_paths == paths


def test_exempt_paths_in_variables():
    environ = {"HOSTLINE_CANONICAL_EXEMPT_PATHS": "/a, /b/", "HOSTLINE_TIMEOUT_EXEMPT_PATHS": "none"}
    assert CanonicalHostSettings.load({}, environ).exempt_paths == ("/a", "/b/")
    assert RequestTimeoutSettings.load({}, environ).exempt_paths == ()


@pytest.mark.parametrize(
    "value", ("", "healthz", "https://example.com/x", "/a?b", "/a#b", "/a\nb", b"/a", 5, "/a*"), ids=repr
)
def test_wrong_exempt_paths(value):
    assert problem_of({"exempt_paths": value}).startswith(f"exempt_paths={value!r} ")
    assert problem_of({"exempt_paths": ["/ok", value]}).startswith(f"{value!r} in exempt_paths ")


def test_a_path_is_no_wildcard():
    assert problem_of({"exempt_paths": "/a/*"}) == (
        "exempt_paths='/a/*' ends in a wildcard. Write '/a/': a path stands for all that begins with it."
    )
    assert problem_of(HOSTLINE_TIMEOUT_EXEMPT_PATHS="/a/*,/b") == (
        "'/a/*' in HOSTLINE_TIMEOUT_EXEMPT_PATHS ends in a wildcard. "
        "Write /a/: a path stands for all that begins with it."
    )


# Hosts


@pytest.mark.parametrize(
    ("value", "authority"),
    (
        ("example.com", Authority("example.com", None)),
        ("Example.COM.", Authority("example.com", None)),
        ("example.com:8080", Authority("example.com", 8080)),
        ("localhost", Authority("localhost", None)),
        ("bücher.example", Authority("xn--bcher-kva.example", None)),
        ("[2001:DB8::1]:80", Authority("[2001:db8::1]", 80)),
        (Authority("example.com", 443), Authority("example.com", 443)),
        (None, None),
    ),
    ids=repr,
)
def test_host(value, authority):
    assert load({"host": value}).host == authority


@pytest.mark.parametrize("variable", ("HOSTLINE_CANONICAL_HOST", "CANONICAL_HOST"))
def test_host_in_a_variable(variable):
    assert load(**{variable: " www.example.com "}).host == Authority("www.example.com", None)
    assert load(**{variable: "off"}).host is None
    assert load(**{variable: ""}).host is None


ONE_HOST = "one host such as www.example.com or localhost:8000, or off"


@pytest.mark.parametrize(
    ("text", "fault", "meant"),
    (
        (
            "https://example.com/",
            "it has a scheme and a path",
            "example.com and HOSTLINE_CANONICAL_SCHEME=https",
        ),
        ("HTTPS://example.com", "it has a scheme", "example.com and HOSTLINE_CANONICAL_SCHEME=https"),
        ("http://example.com:8080", "it has a scheme", "example.com:8080"),
        ("https:/example.com", "it has a scheme", "example.com and HOSTLINE_CANONICAL_SCHEME=https"),
        ("//example.com", "it has a scheme", "example.com"),
        ("example.com/x?y#z", "it has a path and a query and a fragment", "example.com"),
        ("me@example.com", "it has a userinfo", "example.com"),
        ("*.example.com", "it has a wildcard", "example.com"),
        ("www .example.com", "it has a blank", None),
        ("www.exa\x07mple.com", "it has a character that cannot be printed", None),
        ("a.test,b.test", "it has a comma", None),
        ("::1", "an IPv6 address stands in brackets", "[::1]"),
        ("example.com:99999", "its port is no number from 1 to 65535", None),
        ("example.com:http", "its port is no number from 1 to 65535", None),
        ("999.1.1.1", "such a name cannot exist", None),
        ("*.", "it has a wildcard", None),
    ),
)
def test_what_is_no_host_and_what_was_meant(text, fault, meant):
    remedy = f"HOSTLINE_CANONICAL_HOST={meant}" if meant else ONE_HOST
    shown = text.replace("me@", "***@")
    assert problem_of(HOSTLINE_CANONICAL_HOST=text) == (
        f"HOSTLINE_CANONICAL_HOST={shown!r} is no host: {fault}. Write {remedy}."
    )


def test_the_remedy_speaks_the_language_of_the_source():
    assert problem_of({"host": "https://example.com/"}) == (
        "host='https://example.com/' is no host: it has a scheme and a path. "
        "Write host='example.com' and scheme='https'."
    )
    assert problem_of(CANONICAL_HOST="https://example.com/").endswith(
        "Write CANONICAL_HOST=example.com and HOSTLINE_CANONICAL_SCHEME=https."
    )


@pytest.mark.parametrize(
    "value",
    (
        "",
        " ",
        " example.com",
        "example.com\n",
        "*",
        5,
        b"example.com",
        True,
        ["example.com"],
        Authority("x\n", None),
    ),
    ids=repr,
)
def test_wrong_host(value):
    problem = problem_of({"host": value})
    assert problem.startswith(f"host={value!r} is no host")


def test_a_long_value_is_shortened():
    assert len(problem_of({"host": "x" * 100_000})) < 300


SECRETS = (
    "https://user:s3cret@example.com/",
    "user:s3cret@example.com",
    "https://s3cret@example.com",
    "https://user:1/s3cret?#@example.com",
    "https://user:s3@cret@example.com",
    "https://user:s3cret, it's@example.com:x",
    "https:/user:s3cret@example.com",
    f"https://user:s3cret{'x' * 100}@example.com",
)


@pytest.mark.parametrize("text", SECRETS)
@pytest.mark.parametrize("variable", ("HOSTLINE_CANONICAL_HOST", "CANONICAL_HOST", "HOSTLINE_CANONICAL_HOTS"))
def test_no_password_of_a_variable_is_shown(variable, text):
    [problem] = loaded(CanonicalHostSettings, {}, {variable: text})
    assert "***@example.com" in problem
    assert "user" not in problem.replace("userinfo", "")
    assert not re.search("s3|cret|it's", problem)


@pytest.mark.parametrize("text", SECRETS)
@pytest.mark.parametrize("name", ("host", "ignore", "only"))
@pytest.mark.parametrize(
    "wrap", (str, str.encode, lambda text: ["ok.test", text], lambda text: Authority(text, 80)), ids=range(4)
)
def test_no_password_of_an_argument_is_shown(wrap, name, text):
    problems = loaded(CanonicalHostSettings, {name: wrap(text)}, {})
    assert any("***@example.com" in problem for problem in problems)
    assert not re.search("user(?!info)|s3|cret|it's", str(problems))


def test_what_was_meant_is_said_without_the_userinfo():
    assert problem_of({"host": "https://user:s3*cret@example.com/"}) == (
        "host='https://***@example.com/' is no host: it has a scheme and a userinfo and a path. "
        "Write host='example.com' and scheme='https'."
    )
    assert problem_of({"host": "https://user:1/s3cret@example.com"}).endswith(
        "Write one host such as 'www.example.com' or 'localhost:8000', or None."
    )


# Patterns


@pytest.mark.parametrize(
    ("value", "patterns"),
    (
        ("API.example.com.", ("api.example.com",)),
        ("*.Example.com", ("*.example.com",)),
        ("*.bücher.example", ("*.xn--bcher-kva.example",)),
        ("[2001:DB8::1]", ("[2001:db8::1]",)),
        (re.compile("^api"), (re.compile("^api"),)),
        (call, (call,)),
        (["a.test", re.compile("b"), call], ("a.test", re.compile("b"), call)),
        ({"a.test"}, ("a.test",)),
        ((), ()),
        (None, ()),
    ),
    ids=repr,
)
@pytest.mark.parametrize("name", ("ignore", "only"))
def test_patterns(name, value, patterns, caplog):
    assert getattr(load({name: value}), name) == patterns
    assert not caplog.records


def test_patterns_in_a_variable():
    settings = load(HOSTLINE_CANONICAL_IGNORE="API.example.com, *.preview.example.com ,/^b{1,2}[.]/")
    assert settings.ignore == ("api.example.com", "*.preview.example.com", re.compile("^b{1,2}[.]"))
    assert load(HOSTLINE_CANONICAL_ONLY="off").only == ()


def test_patterns_that_match_nothing_are_said_once(caplog):
    with caplog.at_level(logging.WARNING, logger="hostline"):
        settings = load({"ignore": ["*", "api.example.com:8080", "ok.test"], "only": "*"})
    assert settings.ignore == ("*", "api.example.com:8080", "ok.test")
    assert [record.getMessage() for record in caplog.records] == [
        "'*' in ignore matches no request: a pattern is a host's name",
        "'api.example.com:8080' in ignore matches no request: a pattern is a host's name",
        "'*' in only matches no request: a pattern is a host's name",
    ]


@pytest.mark.parametrize(
    ("item", "fault"),
    (
        ("", "is no pattern of hosts: it is empty"),
        (None, "is no pattern of hosts."),
        (5, "is no pattern of hosts."),
        (b"example.com", "is no pattern of hosts."),
        ("https://example.com/", "is no pattern of hosts: it has a scheme and a path. Write 'example.com'."),
        ("example.com/x", "is no pattern of hosts: it has a path. Write 'example.com'."),
        ("^api[.]", "is no pattern of hosts: such a name cannot exist. Write hosts such as"),
        ("www.*.com", "is no pattern of hosts: it has a wildcard. Write hosts such as"),
        ("*.*", "is no pattern of hosts: it has a wildcard. Write hosts such as"),
        ("*.127.0.0.1", "is no pattern of hosts: an IP address has no subdomains"),
        ("*.[::1]", "is no pattern of hosts: an IP address has no subdomains"),
        (
            "*.a.test:80",
            "is no pattern of hosts: it has a port. Write '*.a.test': patterns hold for every port.",
        ),
        (re.compile(b"x"), "is a regular expression for bytes, but hosts are text"),
    ),
    ids=repr,
)
@pytest.mark.parametrize("name", ("ignore", "only"))
def test_wrong_patterns(name, item, fault):
    assert problem_of({name: ["ok.test", item]}).startswith(f"{item!r} in {name} {fault}")
    if item is not None:
        assert problem_of({name: item}).startswith(f"{name}={item!r} {fault}")


def test_wrong_patterns_in_a_variable():
    assert problems_of(HOSTLINE_CANONICAL_IGNORE="ok.test,,https://a.test/")[1] == (
        "'https://a.test/' in HOSTLINE_CANONICAL_IGNORE is no pattern of hosts: "
        "it has a scheme and a path. Write a.test."
    )
    assert problem_of(HOSTLINE_CANONICAL_ONLY="/a(/").startswith(
        "HOSTLINE_CANONICAL_ONLY='/a(/' has a malformed regular expression, 'a(' (missing ), "
    )


# All problems at once


def test_arguments_variables_and_unknown_names_are_reported_together():
    problems = problems_of(
        {"service_timeout": -1, "observers": [1, 2]},
        HOSTLINE_WAIT_TIMEOUT="abc",
        RACK_TIMEOUT_WAIT_OVERTIME="ten",
        HOSTLINE_SERVICE_TIMEOT="5",
        HOSTLINE_WAIT_OVERTIM="6",
    )
    assert [re.match(r"\w+(?: in \w+)?", problem)[0] for problem in problems] == [
        "service_timeout",
        "HOSTLINE_WAIT_TIMEOUT",
        "RACK_TIMEOUT_WAIT_OVERTIME",
        "1 in observers",
        "2 in observers",
        "HOSTLINE_SERVICE_TIMEOT",
        "HOSTLINE_WAIT_OVERTIM",
    ]


def test_the_constructor_reports_all_of_its_problems():
    with pytest.raises(SettingsError) as caught:
        RequestTimeoutSettings(service_timeout=-1, status=200)
    assert len(caught.value.problems) == 2


def test_variables_of_the_other_class_are_known_and_not_read():
    assert CanonicalHostSettings.load({}, {"HOSTLINE_SERVICE_TIMEOUT": "abc"}) == CanonicalHostSettings()
    environ = {"HOSTLINE_CANONICAL_HOST": "https://example.com/"}
    assert RequestTimeoutSettings.load({}, environ) == RequestTimeoutSettings()


@pytest.mark.parametrize("cls", BOTH)
def test_an_unknown_variable_is_a_problem_of_both(cls):
    with pytest.raises(SettingsError) as caught:
        cls.load({}, {"HOSTLINE_CANONICAL_HSOT": "example.com"})
    assert caught.value.problems == (
        (
            "HOSTLINE_CANONICAL_HSOT='example.com' is no variable of hostline. "
            "The nearest known name is HOSTLINE_CANONICAL_HOST."
        ),
    )


def test_unknown_variables_of_others_are_not_our_business():
    assert load(RACK_TIMEOUT_NOTHING="x", CANONICAL_HOSTS="x", HOSTLINE="x") == CanonicalHostSettings()


@pytest.mark.parametrize("read", ("load", "sources"))
def test_an_unknown_argument_is_a_type_error_with_the_nearest_name(read):
    with pytest.raises(
        TypeError, match=r"no setting called servce_timeout \(the nearest is service_timeout\) or modus"
    ):
        getattr(RequestTimeoutSettings, read)({"servce_timeout": 5, "modus": "raise"}, {})


@pytest.mark.parametrize(
    ("cls", "name", "meant"),
    (
        (RequestTimeoutSettings, "timeout_seconds", "service_timeout"),
        (RequestTimeoutSettings, "timeout", "service_timeout"),
        (RequestTimeoutSettings, "request_timeout", "service_timeout"),
        (RequestTimeoutSettings, "HOSTLINE_WAIT_TIMEOUT", "wait_timeout"),
        (CanonicalHostSettings, "canonical_host", "host"),
        (CanonicalHostSettings, "redirect_status", "status"),
    ),
)
def test_an_argument_by_the_name_of_something_else(cls, name, meant):
    with pytest.raises(TypeError, match=rf"called {name} \(the nearest is {meant}\)"):
        cls.load({name: 5}, {})


@pytest.mark.parametrize(
    ("variable", "meant"),
    (
        ("HOSTLINE_TIMEOUT_SERVICE", "HOSTLINE_SERVICE_TIMEOUT"),
        ("HOSTLINE_TIMEOUT_SECONDS", "HOSTLINE_SERVICE_TIMEOUT"),
        ("HOSTLINE_TERM", "HOSTLINE_TERM_ON_TIMEOUT"),
    ),
)
def test_a_variable_with_its_words_in_another_order(variable, meant):
    with pytest.raises(SettingsError, match=f"The nearest known name is {meant}\\."):
        RequestTimeoutSettings.load({}, {variable: "5"})


# Properties

ANY_TEXT = st.text() | st.sampled_from(
    [
        "off",
        "on",
        "15",
        "1e3",
        "/a(/",
        "/[[/",
        "*",
        "*.a.test",
        "a.test:80",
        "https://a.test/",
        "SIGKILL",
        "text/plain",
    ]
)
ANY_VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.timedeltas()
    | st.binary()
    | ANY_TEXT
    | st.sampled_from([10**400, call, re.compile("x"), re.compile(b"x"), Authority("a", None), object, ...])
    | st.builds(Authority, ANY_TEXT, st.none() | st.integers()),
    lambda items: st.lists(items) | st.tuples(items) | st.dictionaries(st.integers(), items),
    max_leaves=4,
)


def loaded(cls, arguments, environ):
    """The settings, or the problems."""
    try:
        return cls.load(arguments, environ)
    except SettingsError as error:
        return error.problems


def names_it_or_stays_as_it_is(result, name):
    """Whether each problem is a sentence on the name, or the settings can be made of their own values."""
    if isinstance(result, tuple):
        return all(name in problem and problem.endswith(".") and "\n" not in problem for problem in result)
    return dataclasses.replace(result) == result


@hypothesis.settings(max_examples=400)
@given(field=st.sampled_from(VARIABLES + RUBY_VARIABLES), text=ANY_TEXT)
def test_any_text_loads_or_is_a_problem_that_names_the_variable(field, text):
    cls, _, variable = field
    assert names_it_or_stays_as_it_is(loaded(cls, {}, {variable: text}), variable)


@hypothesis.settings(max_examples=400)
@given(field=st.sampled_from([(cls, each.name) for cls in BOTH for each in cls.settings()]), value=ANY_VALUE)
def test_any_argument_loads_or_is_a_problem_that_names_it(field, value):
    cls, name = field
    assert names_it_or_stays_as_it_is(loaded(cls, {name: value}, {}), name)


def test_the_variables_of_both_guards_are_checked_at_once():
    check_environment({"HOSTLINE_CANONICAL_HOST": "example.com", "HOSTLINE_SERVICE_TIMEOUT": "15"})
    with pytest.raises(SettingsError) as caught:
        check_environment(
            {"HOSTLINE_CANONICAL_HOST": "a b", "HOSTLINE_SERVICE_TIMEOUT": "abc", "HOSTLINE_FOO": "1"}
        )
    # The unknown one is unknown to both, and told once.
    assert [problem.partition("=")[0] for problem in sorted(caught.value.problems)] == [
        "HOSTLINE_CANONICAL_HOST",
        "HOSTLINE_FOO",
        "HOSTLINE_SERVICE_TIMEOUT",
    ]


# The timeouts of paths


@pytest.mark.parametrize(
    ("text", "rows"),
    (
        ("/reports=60s,/export/=off", (("/reports", 60.0), ("/export/", None))),
        (" /a = 500ms , /b=c=0 ", (("/a", 0.5), ("/b=c", None))),
        ("off", None),
    ),
)
def test_timeout_for_in_a_variable(text, rows):
    assert RequestTimeoutSettings.load({}, {"HOSTLINE_TIMEOUT_FOR": text}).timeout_for == rows


def test_timeout_for_as_an_argument():
    settings = RequestTimeoutSettings.load({"timeout_for": {"/a": timedelta(minutes=1), "/b": None}}, {})
    assert settings.timeout_for == (("/a", 60.0), ("/b", None))
    assert dataclasses.replace(settings) == settings
    assert hash(settings) == hash(dataclasses.replace(settings))
    assert RequestTimeoutSettings.load({"timeout_for": len}, {}).timeout_for is len


@pytest.mark.parametrize(
    ("text", "problem"),
    (
        ("/a", "has no equals sign in '/a'."),
        ("/a=1m", "has '/a=1m', whose '1m' is no number of seconds."),
        ("/a=1,/a=2", "has /a twice."),
        ("a=1", "'a' in HOSTLINE_TIMEOUT_FOR is no path: it does not begin with a slash."),
    ),
)
def test_wrong_timeout_for_in_a_variable(text, problem):
    with pytest.raises(SettingsError) as caught:
        RequestTimeoutSettings.load({}, {"HOSTLINE_TIMEOUT_FOR": text})
    [told] = caught.value.problems
    assert problem in told
    assert "HOSTLINE_TIMEOUT_FOR" in told
    assert "Write paths and their seconds, such as /reports=60s,/export/=off" in told


@pytest.mark.parametrize(
    ("value", "problem"),
    (
        (5, "timeout_for=5 cannot be called."),
        ((5,), "5 in timeout_for is no path with its seconds"),
        ({5: 5}, "5 in timeout_for is no path."),
        ({"/a": "5"}, "the /a of timeout_for='5' is no number of seconds."),
        ({"/a": -1, "b": 1}, "the /a of timeout_for=-1 is negative."),
    ),
)
def test_wrong_timeout_for(value, problem):
    with pytest.raises(SettingsError, match=re.escape(problem)):
        RequestTimeoutSettings.load({"timeout_for": value}, {})


# The headers of callers' budgets


def test_trust_timeout_header():
    environ = {"HOSTLINE_TIMEOUT_TRUST_TIMEOUT_HEADER": "Hostline-Timeout, grpc-timeout"}
    settings = RequestTimeoutSettings.load({}, environ)
    assert settings.trust_timeout_header == ("hostline-timeout", "grpc-timeout")
    alone = RequestTimeoutSettings.load({"trust_timeout_header": "X-Timeout"}, {})
    assert alone.trust_timeout_header == ("x-timeout",)


@pytest.mark.parametrize("value", (5, "", "a b", "a:", True))
def test_wrong_trust_timeout_header(value):
    with pytest.raises(
        SettingsError, match=r"trust_timeout_header.* is no name of a header\. Write the names"
    ):
        RequestTimeoutSettings.load({"trust_timeout_header": value}, {})
