"""hostline's events as StatsD metrics: an observer of your own.

    from statsd_observer import StatsdObserver

    app = RequestTimeoutMiddleware(app, observers=["log", StatsdObserver("127.0.0.1", 8125)])

The labels are tags as Datadog's agent, Telegraf, Vector and Prometheus's statsd_exporter read
them; a StatsD that knows no tags wants `tags` left out.
"""

import socket

from hostline.observers import HostEvent

METHODS = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}


class StatsdObserver:
    def __init__(self, host="127.0.0.1", port=8125, prefix="hostline"):
        self.address = (host, port)
        self.prefix = prefix
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)

    def wants(self, state):
        return state not in ("ready", "active")

    def __call__(self, event):
        method = event.method if event.method in METHODS else "other"  # a client can send any word
        tags = f"|#method:{method}"
        if isinstance(event, HostEvent):
            return self.send(f"host.{event.state}:1|c{tags}")
        # The path would be a metric for each client's invention. Commas part the tags.
        tags += f",route:{(event.route or '').replace(',', '_').replace('|', '_')}"
        lines = [f"request.{event.state}:1|c{tags}"]
        if event.wait is not None:
            lines.append(f"request.wait:{event.wait * 1000:.3f}|ms{tags}")
        if event.service is not None:
            lines.append(f"request.service:{event.service * 1000:.3f}|ms{tags}")
        return self.send(*lines)

    def send(self, *lines):
        packet = "\n".join(f"{self.prefix}.{line}" for line in lines)
        self.socket.sendto(packet.encode(), self.address)
