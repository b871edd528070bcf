"""What export and serving raise."""


class DeployError(ValueError):
    """An export or a server that can't be had as asked; the message says why and what to do."""
