"""Tests of mailer/cli."""
