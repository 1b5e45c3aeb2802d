"""One new bar of every symbol, from the lake into the online store."""
