"""The model, the features and the snapshot behind the routes."""
