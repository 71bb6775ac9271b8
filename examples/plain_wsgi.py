"""A WSGI app without a framework, behind both guards, on waitress.

    pip install "hostline[wsgi]" waitress
    HOSTLINE_CANONICAL_HOST=localhost HOSTLINE_CANONICAL_IP_HOSTS=redirect HOSTLINE_SERVICE_TIMEOUT=2 \
        waitress-serve --listen 127.0.0.1:8000 examples.plain_wsgi:app

    curl -i http://127.0.0.1:8000/      # 301, location: http://localhost:8000/
    curl -i http://localhost:8000/      # 200, hello
    curl -i http://localhost:8000/slow  # 504 after 2 s; the log says: in slow
"""

import logging
import queue

from hostline.wsgi import from_env


def hello(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        slow()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello\n"]


def slow():
    queue.Queue().get()  # nobody will ever put anything into it


logging.basicConfig(level=logging.INFO)
app = from_env(hello)
