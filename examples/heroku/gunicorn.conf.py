"""gunicorn on a dyno, and the same on your own machine; `gunicorn website.wsgi` finds this file.

Heroku's buildpack sets WEB_CONCURRENCY, the number of processes, by the size of the dyno, and
FORWARDED_ALLOW_IPS, so that gunicorn believes the router's X-Forwarded-Proto.
"""

import os

# The router comes over the network, by IPv4 or IPv6; on your own machine nobody is to.
interface = "[::]" if "DYNO" in os.environ else "127.0.0.1"
bind = [f"{interface}:{os.environ.get('PORT', '8000')}"]

# A view that waits for the database leaves its process to the others.
worker_class = "gthread"
threads = 4

# A dyno that is restarted has 30 s to end. A request takes HOSTLINE_SERVICE_TIMEOUT (15 s) at most,
# so that each one that runs when SIGTERM comes is answered, and none is cut off (H13, H18).
graceful_timeout = 25

# Longer than the 90 s for which the router keeps a connection to use it again, so that it never
# asks on one that gunicorn is just closing (H13, H18).
keepalive = 100
