"""Signing: DKIM keys by domain, and the signatures that messages get as they go out."""
