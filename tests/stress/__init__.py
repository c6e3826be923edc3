"""Every structure that threads share, under more threads than it will ever see: nothing lost, nothing twice, counts exact.

On an interpreter with a lock the threads take turns a thousand times as often as usual (``conftest.py``); on a
free-threaded one they meet by themselves.
"""
