"""What differs from one machine in production: the instance, the executor, the servers."""
