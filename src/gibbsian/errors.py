"""The errors a user of gibbsian can meet: each message is one sentence that says what to do."""


class GibbsianError(ValueError):
    """Base of every error that gibbsian raises on purpose; its text is one plain sentence."""


class DataError(GibbsianError):
    """Data that cannot be used as they are: missing, unreadable, empty, or outside the domain."""


class RunError(GibbsianError):
    """A run folder or checkpoint that is missing, damaged, or does not fit the request."""


class TrainingError(GibbsianError):
    """Training that cannot start or go on: an impossible setting, or a value no longer finite."""


class GibbsianWarning(UserWarning):
    """A condition that the user should know of, and that does not stop the work."""
