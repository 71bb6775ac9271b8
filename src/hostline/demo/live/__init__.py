"""The demo's live page: the same requests to the same app, behind hostline and without it.

``shop`` is the app and ``reports`` what it tells us while it runs; ``sides`` are its two servers,
``router`` sends requests to both as a platform's router would, ``board`` holds what became of
them, ``story`` is the load of one button, ``web`` the page, ``conductor`` what runs all that.
"""
