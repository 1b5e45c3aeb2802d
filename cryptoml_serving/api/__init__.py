"""HTTP routes and their errors."""
