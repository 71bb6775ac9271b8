"""What Prometheus is told, read as it would be scraped. Multi-process mode is tested on gunicorn."""

import json
import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from hostline import SettingsError
from hostline.observers.prometheus import BUCKETS, PrometheusObserver
from sinks import CANONICAL, WAITED, ask, ask_for_one_of_each, shop
from timeouts import eventually

ROOT = Path(__file__).parent.parent


class Scraped:
    """An observer's own registry, as it is scraped."""

    def __init__(self, **options):
        self.registry = CollectorRegistry()
        self.observer = PrometheusObserver(self.registry, **options)

    @property
    def samples(self):
        families = text_string_to_metric_families(generate_latest(self.registry).decode())
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
            if not sample.name.endswith("_created")
        }

    def value(self, name, **labels):
        return self.samples.get((name, *sorted(labels.items())))

    def comes_to(self, expected, name, **labels):
        """What happens to a timeout is told by another thread."""
        assert eventually(lambda: self.value(name, **labels) == expected), self.samples


@pytest.fixture
def scraped():
    return Scraped()


ORDERS, REPORTS = "/orders/<int:number>", "/reports/<int:year>"


def test_one_of_each(scraped):
    ask_for_one_of_each(shop(scraped.observer))
    timed_out = {"route": REPORTS, "method": "GET"}
    scraped.comes_to(1, "hostline_requests_timed_out_total", **timed_out)
    scraped.comes_to(1, "hostline_request_service_seconds_count", **timed_out, state="timed_out")
    assert scraped.value("hostline_request_service_seconds_sum", **timed_out, state="timed_out") >= 0.03
    assert scraped.value("hostline_request_wait_seconds_count", **timed_out, state="timed_out") == 1
    completed = {"route": ORDERS, "method": "GET", "state": "completed"}
    assert scraped.value("hostline_request_service_seconds_count", **completed) == 1
    assert scraped.value("hostline_request_wait_seconds_sum", **completed) >= 0.1
    expired = {"route": "", "method": "GET"}  # it has not been routed
    assert scraped.value("hostline_requests_expired_total", **expired) == 1
    assert scraped.value("hostline_request_wait_seconds_sum", **expired, state="expired") >= WAITED - 1
    assert scraped.value("hostline_request_service_seconds_count", **expired, state="expired") is None
    assert scraped.value("hostline_host_requests_total", state="redirected", method="GET") == 1


def test_a_host_that_none_can_have(scraped):
    app = shop(scraped.observer)
    assert ask(app, "/", host="[nonsense") == 400
    assert scraped.value("hostline_host_requests_total", state="rejected", method="GET") == 1


def test_no_client_makes_a_label(scraped):
    app = shop(scraped.observer)
    for number in range(20):
        ask(app, f"/nowhere/{number}")
        ask(app, f"/orders/{number}", method="PURGE")
        ask(app, "/", host=f"{number}.example.org", method="PURGE")
    labels = {
        (dict(rest).get("route"), dict(rest).get("method"))
        for _, *rest in scraped.samples
        if dict(rest).get("method")
    }
    assert labels == {("", "GET"), (ORDERS, "other"), (None, "other")}


def test_one_route_too_many_is_another():
    scraped = Scraped(most_routes=1)
    app = shop(scraped.observer, timeout_for=None)
    for rule in ("/a", "/b", "/c"):
        app.add_url_rule(rule, rule, lambda: "")
    for path in ("/a", "/b", "/c", "/a", "/nowhere"):
        ask(app, path)
    counts = {
        dict(rest)["route"]: value
        for (name, *rest), value in scraped.samples.items()
        if name == "hostline_request_service_seconds_count"
    }
    assert counts == {"/a": 2, "other": 2, "": 1}


def test_in_flight():
    scraped = Scraped(in_flight=True)
    seen = []
    app = shop(scraped.observer)
    app.add_url_rule("/look", "look", lambda: str(seen.append(scraped.value("hostline_requests_in_flight"))))
    ask(app, "/look")
    ask_for_one_of_each(app)
    ask(app, "/look")
    assert seen[0] == 1
    scraped.comes_to(0, "hostline_requests_in_flight")


def test_without_a_stamp_nothing_has_waited(scraped):
    app = shop(scraped.observer)
    app.test_client().get("/orders/1", base_url=f"http://{CANONICAL}")
    names = {name for name, *_ in scraped.samples}
    assert "hostline_request_service_seconds_count" in names
    assert "hostline_request_wait_seconds_count" not in names


def test_buckets_hold_the_default_limits(scraped):
    assert {15.0, 30.0, 90.0} <= set(BUCKETS)
    few = Scraped(buckets=[1, 2])
    for each in (scraped, few):
        ask(shop(each.observer), "/orders/1")
    bounds = [
        {dict(rest)["le"] for name, *rest in each.samples if name.endswith("_bucket")}
        for each in (scraped, few)
    ]
    assert bounds == [{*map(str, BUCKETS), "+Inf"}, {"1.0", "2.0", "+Inf"}]


def test_a_registry_takes_one_observer(scraped):
    with pytest.raises(
        SettingsError, match=r"already: .* Give one to both guards, or each a registry of its own\.$"
    ):
        PrometheusObserver(scraped.registry)


def test_other_faults_are_prometheus_client_s_to_tell():
    with pytest.raises(ValueError, match="buckets") as caught:
        PrometheusObserver(CollectorRegistry(), buckets=())
    assert not isinstance(caught.value, SettingsError)


def _promql():
    """Every expression of the dashboard, and of the alerts in the docs."""
    dashboard = json.loads((ROOT / "docs" / "grafana" / "hostline.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["definition"]
    page = (ROOT / "docs" / "how-to" / "many-machines.md").read_text()
    rules = re.search(r"^```yaml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    yield rules[1]


def test_the_dashboard_and_the_alerts_ask_for_what_is_exported():
    scraped = Scraped(in_flight=True)
    ask_for_one_of_each(shop(scraped.observer))
    scraped.comes_to(1, "hostline_requests_timed_out_total", route=REPORTS, method="GET")
    exported = {name for name, *_ in scraped.samples}
    labels = {label for _, *rest in scraped.samples for label, _ in rest}
    states = {dict(rest).get("state") for _, *rest in scraped.samples} | {"rejected", "would_redirect"}
    asked = set()
    for expression in _promql():
        names = set(re.findall(r"(?<![:\w])hostline_\w+", expression))
        asked |= names
        assert names <= exported, expression
        for selector in re.findall(r"\{([^{}]*[=~][^{}]*)\}", expression):
            for label, value in re.findall(r'(\w+)[=!~]+"([^"]*)"', selector):
                assert label in labels | {"job", "instance"}
                assert label != "state" or set(value.split("|")) <= states
        for grouping in re.findall(r"by \(([\w, ]+)\)", expression):
            assert set(grouping.replace(" ", "").split(",")) <= labels | {"job", "instance"}
    of_each = ("wait_seconds_bucket", "service_seconds_bucket", "timed_out_total", "expired_total")
    assert all(any(name.endswith(each) for name in asked) for each in of_each)
    assert "hostline_host_requests_total" in asked
