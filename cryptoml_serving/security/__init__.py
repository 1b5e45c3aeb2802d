"""Who may ask for what: keys, tokens, roles, rates and what the service shows of itself."""
