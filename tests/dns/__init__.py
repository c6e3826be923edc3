"""Tests of mailer.dns."""
