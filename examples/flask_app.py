"""Flask behind both guards, configured by environment variables.

    pip install "hostline[flask]" gunicorn
    HOSTLINE_CANONICAL_HOST=localhost HOSTLINE_CANONICAL_IP_HOSTS=redirect HOSTLINE_SERVICE_TIMEOUT=2 \
        gunicorn --threads 4 --chdir examples flask_app:app

http://127.0.0.1:8000/ goes to http://localhost:8000/. http://localhost:8000/slow answers 504
after 2 s, and the log holds the line below at which it was.
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
