"""The gate, approvals and what is deployed."""
