"""The one exception that is meant for a user."""


class UserError(Exception):
    """A wrong input: the message names file and field, what was expected, and what to do.

    The command line prints the message without a traceback and exits with code 2.
    """
