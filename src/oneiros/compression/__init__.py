"""Lossless compression: whatever predicts well also compresses well."""
