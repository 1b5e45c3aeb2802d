"""The Feast repository: views and services built from the feature catalog."""
