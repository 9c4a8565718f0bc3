"""What goes wrong in a user's hands, told in one sentence."""


class LandcoverError(ValueError):
    """Input that cannot be used: the message names the value, the rule and the way out.

    The command line prints it without a traceback and exits with code 1.
    """


class LandcoverWarning(UserWarning):
    """Input that can be used, but not as the user may believe."""
