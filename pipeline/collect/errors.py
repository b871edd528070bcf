"""What people can mend when collecting goes wrong."""


class CollectError(ValueError):
    """A request to collect labels that can't be met; the message says why and what to do."""
