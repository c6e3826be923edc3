"""Sending mail: the ways it can leave by, and how a conversation with a server goes."""
