"""Training rows joined as of their instant, against Feast's own retrieval."""
