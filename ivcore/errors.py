"""The two ways a command ends badly: the caller's mistake (exit 2) and work that failed (exit 1)."""


class UserError(Exception):
    """The caller's mistake: one line that names the thing, the value and the cure. `iv` exits 2."""


class WorkError(Exception):
    """Work that was asked for rightly and failed: one line that says what and where. `iv` exits 1."""
