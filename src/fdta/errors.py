"""The error that a user can mend."""


class InputError(Exception):
    """Bad input: one line that names the place, what is wrong and what to do. The command exits with code 2."""
