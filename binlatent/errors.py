"""The exception for problems that the user can fix."""


class UserError(Exception):
    """A request cannot be carried out; the message says what is wrong and what to do.

    The command line prints the message alone, without a traceback.
    """


class CheckpointError(UserError):
    """A checkpoint could not be written. Threads that wait for it may be left behind: an orderly exit would wait for them."""
