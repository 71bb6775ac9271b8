"""What was given to a setting, as an argument or in an environment variable, and how to read it.

Text is read strictly: every reader takes a text without surrounding blanks and gives a
value, or raises a ``ValueError`` whose message goes on with the sentence "``NAME='text'``
...". Nothing is guessed and nothing is cut off: ``15m`` is no 15. What a value may be is
not decided here but by the :class:`Kind` of each setting, for variables and arguments
alike. The environment is passed in, never looked up.

May import ``errors`` of hostline.
"""

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from hostline.errors import SettingsError

PREFIX = "HOSTLINE_"

OFF_WORDS = frozenset({"0", "off", "false", "no", "none"})
ON_WORDS = frozenset({"1", "on", "true", "yes"})

# Digits are written out: \d, float() and int() take those of every script, "1_000" and "1e3".
_SECONDS = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)(m?s)?")
_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")
# A regular expression ends at the first slash before a comma or the end, so that neither a
# comma nor a slash in its middle needs an escape.
_REGEX = re.compile(r"/((?:\\.|[^\\])+?)/\s*(?=,|\Z)", re.DOTALL)

# What a limit is called by those who know of one alone: the one that every request has.
_OF_ANY_LIMIT = frozenset({"timeout", "request", "seconds"})

_SHOWN_LENGTH = 80
# Whatever stands before the last "@" of a repr, but for the quote (of a list's first item, or
# of an Authority's host, too) and the scheme. Where a userinfo begins and ends cannot be told
# by RFC 3986: a password that nobody has percent-encoded may have any character in it.
_USERINFO = re.compile(r"\A((?:[\w(\[{=]*['\"])?(?:(?:[a-z][a-z0-9+.-]*:)?//|https?:/)?).*@", re.IGNORECASE)


def text_of(environ: Mapping[str, str], variable: str | None) -> str | None:
    """The variable's text without surrounding blanks; None where it is unset or empty."""
    return (environ.get(variable, "").strip() or None) if variable else None


def is_on_heroku(environ: Mapping[str, str]) -> bool:
    """Whether a dyno runs this, and no build of Heroku's CI."""
    return bool(environ.get("DYNO")) and not environ.get("CI")


def means_off(text: str) -> bool:
    """Whether the text is one of the words that switch a setting off."""
    return text.lower() in OFF_WORDS


def read_seconds(text: str) -> float:
    """``15``, ``0.5``, ``.5``, ``15s`` or ``500ms``, in seconds."""
    match = _SECONDS.fullmatch(text)
    if match is None:
        raise ValueError("is no number of seconds")
    number, unit = match.groups()
    return float(number) / 1000 if unit == "ms" else float(number)


def read_whole_number(text: str) -> int:
    """``0``, ``5``, ``504``: digits only."""
    if _WHOLE_NUMBER.fullmatch(text) is None:
        raise ValueError("is no whole number")
    return int(text)


def read_switch(text: str) -> bool:
    """One of the words for on and off, in any case."""
    if not means_off(text) and text.lower() not in ON_WORDS:
        raise ValueError("is neither on nor off")
    return not means_off(text)


def read_text(text: str) -> str:
    """The text as it is."""
    return text


def read_word(text: str) -> str:
    """A word out of a few, in any case."""
    return text.lower()


def read_signal(text: str) -> int | str:
    """A signal's number, else its name."""
    return int(text) if _WHOLE_NUMBER.fullmatch(text) else text


def read_list(text: str) -> tuple[str, ...]:
    """What stands between the commas, without surrounding blanks."""
    return tuple(item.strip() for item in text.split(","))


def read_path_table(text: str) -> tuple[tuple[str, float | None], ...]:
    """``/reports=60s,/export/=off``: paths and the seconds, or the word for off, of each."""
    return tuple(_path_and_seconds(item) for item in read_list(text))


def _path_and_seconds(item: str) -> tuple[str, float | None]:
    path, equals, seconds = (part.strip() for part in item.rpartition("="))
    if not equals:
        raise ValueError(f"has no equals sign in {shown(item)}")
    try:
        return path, None if means_off(seconds) else read_seconds(seconds)
    except ValueError as error:
        raise ValueError(f"has {shown(item)}, whose {shown(seconds)} {error}") from None


def read_patterns(text: str) -> tuple[str | re.Pattern[str], ...]:
    """A comma-separated list in which ``/.../`` is a regular expression, commas and all."""
    return tuple(_patterns(text))


def _patterns(text: str) -> Iterator[str | re.Pattern[str]]:
    rest: str | None = text
    while rest is not None:
        rest = rest.lstrip()
        match = _REGEX.match(rest)
        if match is not None:
            yield _compiled(match[1])
            _, comma, behind = rest[match.end() :].partition(",")
        elif rest.startswith("/"):
            raise ValueError("has a regular expression that does not end in a slash")
        else:
            item, comma, behind = rest.partition(",")
            yield item.strip()
        rest = behind if comma else None


def _compiled(source: str) -> re.Pattern[str]:
    try:
        return re.compile(source)
    # Warning: where warnings are errors, that of a "[[" must not get past SettingsError.
    except (re.error, OverflowError, RecursionError, Warning) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"has a malformed regular expression, {shown(source)} ({reason})") from None


def unknown_variables(environ: Mapping[str, str], known: Collection[str]) -> Iterator[str]:
    """A problem for each ``HOSTLINE_*`` variable that is set and that nobody reads."""
    for variable in sorted(environ):
        text = text_of(environ, variable)
        if variable.startswith(PREFIX) and variable not in known and text is not None:
            yield (
                f"{variable}={shown(text)} is no variable of hostline. "
                f"The nearest known name is {nearest(variable, known)}."
            )


def nearest(name: str, known: Collection[str]) -> str:
    """Which of the known names is most like the name, word by word: neither order nor case counts.

    Nor does the prefix, which is everybody's.
    """
    words = _words(name)
    if _OF_ANY_LIMIT.issuperset(words):
        words = ["service", "timeout"]
    return max(sorted(known), key=lambda candidate: _likeness(words, _words(candidate)))


def _words(name: str) -> list[str]:
    return name[:_SHOWN_LENGTH].lower().removeprefix(PREFIX.lower()).strip("_").split("_")


def _likeness(words: list[str], known: list[str]) -> tuple[float, float]:
    """How far it has the words; a word more than those counts less. Then, how far the order is the same."""
    return _share(words, known) + _share(known, words) / 2, _ratio("_".join(words), "_".join(known))


def _share(words: list[str], others: list[str]) -> float:
    return sum(max(_ratio(word, other) for other in others) for word in words) / len(words)


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def shown(value: object) -> str:
    """The value's ``repr`` on one line, shortened; total, whatever the value.

    What may be a password is hidden in any value, not in hosts alone: a variable that
    nobody knows may be a database's URL, or the misspelled name of a host.
    """
    try:
        text = _USERINFO.sub(r"\1***@", " ".join(repr(value).split()))
    except Exception:  # noqa: BLE001 - somebody else's __repr__, or an int of 5,000 digits
        return f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN_LENGTH else f"{text[: _SHOWN_LENGTH - 10]}...{text[-7:]}"


@dataclass(frozen=True, slots=True)
class Given:
    """A value that somebody gave to a setting, as an argument or in a variable."""

    setting: "Setting"
    value: object
    variable: str | None = None
    #: What an argument is called where it was written, if not as the setting.
    label: str | None = None

    @property
    def name(self) -> str:
        """What its author calls it."""
        return self.variable or self.label or self.setting.name

    def sibling(self, name: str) -> str:
        """What its author calls another setting of the same guard and prefix."""
        own = self.setting.variable if self.variable else self.name  # Ruby's variables have no siblings
        prefix = (own or "").lower().removesuffix(self.setting.name)
        return f"{prefix}{name}".upper() if own and own.isupper() else f"{prefix}{name}"

    def settled(self) -> object:
        """The value in its normal form."""
        kind = self.setting.kind
        if self.variable is None:
            return kind.check(self, self.value)
        text = str(self.value)
        if kind.can_be_off and means_off(text):
            return kind.check(self, None)
        try:
            value = kind.read(text)
        except ValueError as error:
            raise self.refusal(str(error)) from None
        return kind.check(self, value)

    def refusal(self, fault: str, remedy: str | None = None) -> SettingsError:
        """The sentence that says that the value is wrong and what is right."""
        return SettingsError([f"{self.name}={shown(self.value)} {fault}. {remedy or self._remedy}."])

    def refusal_of(self, item: object, fault: str, remedy: str | None = None) -> SettingsError:
        """The same for one item of a list, which may stand alone."""
        if item is self.value or (isinstance(item, str) and item == self.value):
            return self.refusal(fault, remedy)
        return SettingsError([f"{shown(item)} in {self.name} {fault}. {remedy or self._remedy}."])

    def spelled(self, text: str) -> str:
        """How its author writes this text: without quotes in a variable."""
        return repr(text) if self.variable is None else text

    @property
    def _remedy(self) -> str:
        kind = self.setting.kind
        return f"Write {kind.argument if self.variable is None else kind.text}"


class Kind(NamedTuple):
    """What the values of a setting have in common."""

    check: Callable[[Given, object], object]  # gives the normal form or raises SettingsError
    argument: str  # what may be written as an argument, after "Write"
    text: str = ""  # what may be written in a variable, after "Write"
    read: Callable[[str], object] = read_text
    can_be_off: bool = False  # the words for off then mean None
    unit: str | None = None


class Setting(NamedTuple):
    """All that there is to say about one setting: a row of the documentation's table."""

    name: str
    default: object
    doc: str
    variable: str | None
    ruby_variable: str | None
    kind: Kind

    @property
    def unit(self) -> str | None:
        """What a number of it counts."""
        return self.kind.unit


def find(
    setting: Setting,
    arguments: Mapping[str, object],
    environ: Mapping[str, str],
    labels: Mapping[str, str],
) -> Given | None:
    """What was given to the setting: the argument, else its variable, else Ruby's; ``...`` was not given."""
    argument = arguments.get(setting.name, ...)
    if argument is not ...:
        return Given(setting, argument, label=labels.get(setting.name))
    for variable in (setting.variable, setting.ruby_variable):
        text = text_of(environ, variable)
        if text is not None:
            return Given(setting, text, variable)
    return None
