from django.db import connection
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from guestbook.models import Entry


@require_http_methods(["GET", "HEAD", "POST"])
def entries(request):
    """The newest entries; a POST adds one."""
    if request.method == "POST":
        Entry.objects.create(text=request.POST.get("text", "")[:200])
        return redirect("/")
    return render(request, "guestbook/entries.html", {"entries": Entry.objects.all()[:50]})


def report(request):
    """A query that nobody should wait for: it takes an hour on PostgreSQL, and never ends on SQLite."""
    query = "SELECT pg_sleep(3600)"
    if connection.vendor == "sqlite":
        query = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with connection.cursor() as cursor:
        cursor.execute(query)
        return HttpResponse(str(cursor.fetchone()))


def healthz(request):
    """For probes, which come by any name: HOSTLINE_CANONICAL_EXEMPT_PATHS lets them pass."""
    return HttpResponse("ok\n", content_type="text/plain")
