"""Flask behind both guards, configured by environment variables.

    pip install "hostline[flask]" gunicorn
    HOSTLINE_CANONICAL_HOST=localhost HOSTLINE_CANONICAL_IP_HOSTS=redirect HOSTLINE_SERVICE_TIMEOUT=2 \
        gunicorn --bind 127.0.0.1:8000 --threads 4 --chdir examples flask_app:app

    curl -i http://127.0.0.1:8000/      # 301, location: http://localhost:8000/
    curl -i http://localhost:8000/      # 200, hello
    curl -i http://localhost:8000/slow  # 504 after 2 s; the log says: in slow
"""

import logging

from flask import Flask

from hostline.wsgi import from_env

logging.basicConfig(level=logging.INFO)
app = Flask(__name__)
app.wsgi_app = from_env(app.wsgi_app)


@app.get("/")
def home():
    return {"hello": "world"}


@app.get("/slow")
def slow():
    total = 0
    while True:
        total += 1
