"""Raw bars of an exchange."""
