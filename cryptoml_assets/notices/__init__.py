"""What people are told, over which channel, and the record of it."""
