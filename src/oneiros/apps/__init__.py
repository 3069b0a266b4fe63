"""Assistants: programs that processes run, and what models are told there."""
