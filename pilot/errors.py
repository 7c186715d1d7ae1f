"""The exception whose message is shown to users."""


class UserError(Exception):
    """An error that the user can correct: the message names file and field, what was expected, and what to do.

    The command line prints the message without a traceback and exits with code 2.
    """
