"""A local exchange, chain and metrics world that speaks the real protocols."""
