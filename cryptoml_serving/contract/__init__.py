"""What the asset graph and the service agree on."""
