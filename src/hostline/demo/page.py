"""The one page of both apps, for those who open them in a browser."""

_PAGE = """\
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>hostline demo: {framework}</title></head>
<body>
<h1>Hello from {framework}</h1>
<p>Whatever name you asked for, the address bar now says <code>localhost</code>.</p>
<p><a href="/slow">This page takes ten seconds</a>; hostline gives it one.
Look at the terminal afterwards: it says what the code was doing.</p>
<p><a href="/counts">What has reached the app.</a></p>
</body>
</html>
"""


def page(framework: str) -> str:
    """The page of this framework's app."""
    return _PAGE.format(framework=framework)
