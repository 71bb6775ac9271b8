"""Falcon behind both guards, with a limit of its own for one path.

    pip install "hostline[wsgi]" falcon gunicorn
    HOSTLINE_CANONICAL_HOST=localhost HOSTLINE_CANONICAL_IP_HOSTS=redirect HOSTLINE_TIMEOUT_FOR=/slow=2s \
        gunicorn --bind 127.0.0.1:8000 --threads 4 --chdir examples falcon_app:app

    curl -i http://127.0.0.1:8000/      # 301, location: http://localhost:8000/
    curl -i http://localhost:8000/      # 200, hello
    curl -i http://localhost:8000/slow  # 504 after 2 s; the log says: in on_get
"""

import logging

import falcon

from hostline.wsgi import from_env


class Home:
    def on_get(self, req, resp):
        resp.media = {"hello": "world"}


class Slow:
    def on_get(self, req, resp):
        total = 0
        while True:
            total += 1


logging.basicConfig(level=logging.INFO)
app = falcon.App()
app.add_route("/", Home())
app.add_route("/slow", Slow())
app = from_env(app)
