"""Oneiros: an operating system for language models."""
