"""The SMTP sessions in a process of their own, on another processor (``processes`` 2); the rest of the house does not notice."""
