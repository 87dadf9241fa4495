"""The one exception for problems that the person at the keyboard can fix."""


class UserError(Exception):
    """Something asked for cannot be done; the message says what is wrong and what to do.

    The command line prints the message alone, without a traceback.
    """
