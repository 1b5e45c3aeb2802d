"""Families of models: each a function from standardised inputs to a distribution of the return."""
