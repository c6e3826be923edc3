"""Measurements of mailer beside Postfix; ``python -m bench --help`` says which, docs/performance.md what they mean."""
