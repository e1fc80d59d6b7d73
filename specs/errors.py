"""The one exception that a user is meant to read."""


class UserError(Exception):
    """A mistake in what was asked for: one line that gives the value, the limit and what to do."""
