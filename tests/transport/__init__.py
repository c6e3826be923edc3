"""Tests of mailer.transport."""
