"""The OpenAI-compatible server: HTTP on one side, engine services on the other."""
