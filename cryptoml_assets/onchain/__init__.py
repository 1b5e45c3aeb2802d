"""Blocks and network metrics."""
