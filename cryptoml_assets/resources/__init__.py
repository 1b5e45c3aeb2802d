"""Connections: lake, feature store, tracker, venue, chain node."""
