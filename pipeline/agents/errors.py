"""What a person can mend: one sentence, no stack trace."""


class AgentError(ValueError):
    """An environment that can't be made, or that an algorithm can't handle; a saved agent or film that doesn't fit."""
