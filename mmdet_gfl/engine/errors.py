"""The one error that ends a tool."""

from __future__ import annotations


class UserError(SystemExit):
    """Something the user can mend: ends the tool with one sentence on stderr and exit status 1."""
