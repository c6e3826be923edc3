"""Tell it: log lines that cannot be forged, and metrics."""
