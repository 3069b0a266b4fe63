"""Every error that Oneiros raises on purpose.

Messages say what is wrong, where, and what to do about it; the command line prints them as they
are. Programming mistakes keep Python's own exceptions.
"""


class OneirosError(Exception):
    """Base of all errors that a user can meet and act on."""


class ModelFileError(OneirosError):
    """A parameter file or model folder is missing, truncated, malformed or inconsistent."""


class UnsupportedModelError(ModelFileError):
    """The file is sound, but holds a model that the Oneiros engine does not run."""


class TokenizationError(OneirosError):
    """A text holds something that the model's vocabulary cannot express."""


class ModelNotFoundError(OneirosError):
    """No model of that name is known or installed, and no such path exists."""


class DownloadError(OneirosError):
    """A model could not be fetched from any of its sources."""


class HashMismatchError(DownloadError):
    """Fetched bytes differ from the SHA-256 that the catalog names."""


class ContextLengthError(OneirosError):
    """A prompt does not fit the context."""


class NotEnoughMemoryError(OneirosError):
    """The machine lacks the memory that a model needs."""


class InvalidSamplingError(OneirosError):
    """A sampling option lies outside its range."""


class CompressedFileError(OneirosError):
    """A compressed file is malformed, or was made with another model or kernel."""


class KernelError(OneirosError):
    """The compiled kernels are missing, do not fit this machine, or reported a failure."""


class ConstraintError(OneirosError):
    """A schema, expression or grammar is malformed, or asks for something not supported."""


class TrainingError(OneirosError):
    """A stage of training cannot start or go on: its data, settings or folder do not allow it."""


class EvaluationError(OneirosError):
    """An evaluation cannot start or go on: its data, settings or answers do not allow it."""


class OverloadedError(OneirosError):
    """Too many requests wait already; trying again later helps."""


class EngineFailedError(OneirosError):
    """The engine's process ended and could not be brought back, or a request made it end."""


class ConversationError(OneirosError):
    """A conversation cannot do what it was asked in its present state, or be restored here."""


class ReplyTimeoutError(OneirosError):
    """A reply was not complete in the time it was given."""


class RemoteError(OneirosError):
    """An endpoint could not be reached, refused a request, or broke off its answer.

    Attributes:
        status: the HTTP status; None where there was no answer.
        transient: whether the same request may succeed later.
        retry_after: seconds after which the endpoint wants to be asked again, if it said so.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        transient: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.transient = transient
        self.retry_after = retry_after


def quoted(text: str) -> str:
    """Text from an untrusted file for a message: shortened, and without control characters."""
    return f'"{repr(text[:100])[1:-1]}"'


class JournalError(OneirosError):
    """The journal of a data folder is damaged, in use, or of a version that is not known."""


class BlobErasedError(JournalError):
    """A text of the journal was erased."""


class ProcessError(OneirosError):
    """There is no such process, or it cannot do this now."""


class ReplayError(OneirosError):
    """A process, executed again from its journal, did something else."""


class DiskError(OneirosError):
    """A path leads out of a process's files, or a file cannot be read, written or found."""


class SandboxError(OneirosError):
    """Programs cannot be confined on this machine."""


class ControlError(OneirosError):
    """The running kernel cannot be reached, or refused a command."""
