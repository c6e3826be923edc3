"""The torture run: everything is done to the program that a machine, a provider or an operator can do to it, and every
message that it answered 250 for is accounted for. ``make torture``; docs/reliability.md says what is tried and how it is judged.
"""
