"""Every setting (``schema``), how it is read and checked (``load``), shown (``show``) and documented."""
