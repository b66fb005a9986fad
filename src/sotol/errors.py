"""The errors that a user of sotol can meet; each message is one sentence that says what is wrong and what to do."""

__all__ = ["FormatError", "ModelError", "SotolError", "TemplateError"]


class SotolError(Exception):
    """Base of every error that sotol raises about files, models and machines (bad arguments raise ValueError)."""


class FormatError(SotolError):
    """A file that is not what it claims to be: names the file, the field and the offset."""


class ModelError(SotolError):
    """A well-formed model that can't be run: an unknown architecture, a missing weight, a wrong shape or encoding."""


class TemplateError(SotolError):
    """A chat template that fails, or a conversation that the model's template refuses."""
