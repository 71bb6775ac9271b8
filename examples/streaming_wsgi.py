"""Streams under WSGI: one that lives for as long as it likes, and one that falls silent and is cut.

    pip install "hostline[wsgi]" werkzeug gunicorn
    HOSTLINE_SERVICE_TIMEOUT=2 HOSTLINE_STREAM_TIMEOUT=2 \
        gunicorn --bind 127.0.0.1:8000 --threads 4 --chdir examples streaming_wsgi:app

    curl -iN http://localhost:8000/        # 200, hello
    curl -iN http://localhost:8000/count   # 200 after 3 s, 14
    curl -iN http://localhost:8000/silent  # 200, cut off after 2 s; the log says: in silent
"""

import logging
import threading
import time

from werkzeug import Request, Response

from hostline.wsgi import from_env


def count():
    """Three seconds, which is longer than the service timeout; but never two without a chunk."""
    for number in range(15):
        yield f"{number}\n"
        time.sleep(0.2)


def silent():
    yield "wait for it\n"
    threading.Event().wait()


PAGES = {"/": lambda: "hello\n", "/count": count, "/silent": silent}


@Request.application
def serve(request):
    return Response(PAGES[request.path](), mimetype="text/plain")


logging.basicConfig(level=logging.INFO)
app = from_env(serve)
