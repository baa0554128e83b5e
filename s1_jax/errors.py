"""The two ways a command ends by intent."""


class UserError(Exception):
    """A mistake only the user can mend: shown as one line, exit code 2."""


class RunError(Exception):
    """A run that cannot go on through nobody's mistake: shown as one line, exit code 1."""
