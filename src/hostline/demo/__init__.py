"""The demo: both guards at work on real servers. ``python -m hostline.demo`` runs it.

A program, not a library: nothing here is for import by users. ``flask_app`` and
``fastapi_app`` are what it serves, ``scenes`` what it does to them, ``servers``,
``signals``, ``client`` and ``transcript`` what it needs for that. ``live`` is the page that it serves then.
"""
