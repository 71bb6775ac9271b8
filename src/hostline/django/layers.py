"""What Django calls the layers of a stack, and how an entry fits itself into one, sync or async."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase

# What the next layer gives: sync and async stacks have the same kind of entries.
Response: TypeAlias = HttpResponseBase | Awaitable[HttpResponseBase]
GetResponse: TypeAlias = Callable[[HttpRequest], Response]


def is_made_async(entry: GetResponse, get_response: GetResponse) -> bool:
    """Have Django take the entry for what the next layer is; whether that is async."""
    # asgiref's: before CPython 3.12 inspect's does not see what markcoroutinefunction does.
    is_async = iscoroutinefunction(get_response)  # pyright: ignore[reportDeprecated]
    if is_async:
        markcoroutinefunction(entry)
    return is_async
