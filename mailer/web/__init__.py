"""Show it: health, metrics and the admin API over HTTP."""
