"""Hear it: bytes (``wire``), verbs in and Replies out (``session``), ports and threads (``server``)."""
