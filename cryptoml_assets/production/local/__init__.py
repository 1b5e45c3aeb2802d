"""Servers of production on one machine, for ``cryptoml demo --profile production`` and tests."""
