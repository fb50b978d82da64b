"""Placeholder."""


def usable(t):
    return False


attend = None
