"""An app that says what reached it, behind both guards as the environment configures them."""

import json
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from hostline.wsgi import from_env


def _tell(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    told = {
        "wait": environ["hostline.request"].wait,
        "host": environ.get("HTTP_HOST"),
        "proto": environ.get("HTTP_X_FORWARDED_PROTO"),
    }
    body = json.dumps(told).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


app = from_env(_tell)
