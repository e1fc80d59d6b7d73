"""Why a split cannot be planned."""

from specs.errors import UserError


class MissingError(UserError):
    """A part that no file has: one line on what is there instead."""
