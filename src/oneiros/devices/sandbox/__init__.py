"""The sandbox: programs that a model wrote run confined, on a private copy of the user's files.

`mechanism.py` says what confines them, `programs/` is what runs inside, `confined.py` starts and
ends them, and `workspaces.py` is what the devices use.
"""
