"""Signs of hidden payloads in texts: telemetry for people, which nothing is decided by."""
