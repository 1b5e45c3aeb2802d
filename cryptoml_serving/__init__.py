"""The inference service; it knows neither Dagster nor the asset graph."""
