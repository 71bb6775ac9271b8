"""A small WSGI app behind both guards, for the tests of ``hostline check``."""

import logging

from hostline.wsgi import from_env

logging.basicConfig(level=logging.INFO)


def home(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]


app = from_env(home)
