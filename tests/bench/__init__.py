"""Tests of bench/: its arithmetic and its parsing, no figures."""
