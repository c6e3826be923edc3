"""Looks at everything that stands between this machine and mail that arrives; the command line prints what is found."""
