"""Bars from files that others recorded: what a file cannot say is asked, never guessed."""
