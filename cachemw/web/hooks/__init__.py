"""Hooks that ship with us: what the app itself would ask before it hands out an image.

An ``authorize`` hook is called with the request and the copy before a hit. It
runs inside the app's own process, so it may use the app's own code; it imports
that inside its functions, since we work without it.
"""
