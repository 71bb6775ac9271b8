"""The logger, and lines with a stack below them.

A record with a stack has it in its attribute ``stack`` too, and what it is of in ``state``:
``_log_ration`` tells the lines by that, and can take a stack off again.

Imports: ``_stacks``.
"""

import logging
from collections.abc import Mapping

from hostline import _stacks

logger = logging.getLogger("hostline")
#: Enabled for DEBUG, it has stacks written whole. Nothing is ever written to it.
_whole_stacks = logging.getLogger("hostline.stack")

#: The text of a record with a stack: its line, and that.
LINE_AND_STACK = "%s\n%s"


def as_text(trace: _stacks.Trace) -> str:
    """A stack as it is shown: the app's own frames and the innermost, unless all are wanted."""
    if _whole_stacks.isEnabledFor(logging.DEBUG):
        return _stacks.render(trace)
    return _stacks.render_trimmed(trace)


def log_stack(level: int, line: str, trace: _stacks.Trace, fields: Mapping[str, object]) -> None:
    """Write a line with a stack below it; the fields, and the stack, are attributes of the record."""
    if logger.isEnabledFor(level):
        log_line(level, line, as_text(trace), fields)


def log_line(level: int, line: str, stack: str | None, fields: Mapping[str, object]) -> None:
    """The same with the stack as text, if there is one."""
    # The line is an argument: a "%" in an id is no directive.
    args = (line, stack) if stack else (line,)
    logger.log(level, LINE_AND_STACK if stack else "%s", *args, extra={**fields, "stack": stack or None})
