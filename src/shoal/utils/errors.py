"""The one exception whose message is meant for the person at the keyboard."""


class UserError(Exception):
    """Something the user can mend: a misspelt setting, a missing package, an unwritable folder.

    The message is one clear sentence that says what to do. The command line prints it
    without a traceback and exits with status 1.
    """
