"""Drift of features, and what asks for a retrain."""
