"""How a partner's SFTP server is reached, and how it is known to be the partner's. It opens nothing.

Keys are read from their files at each connection, so that a rotated key takes effect without a restart.
"""

from __future__ import annotations

from pydantic import Field

from gsb.sdk import SecretFile, Settings


class SftpSettings(Settings):
    """Base of the settings of an adapter that exchanges files; paths on the server start where the account does."""

    host: str = Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9.:-]+$")
    """Name or address of the partner's server."""
    port: int = Field(default=22, ge=1, le=65_535)
    """Its port."""
    user: str | None = Field(default=None, min_length=1, max_length=64)
    """The account's name; none: that of the account under which the bus runs, as ``ssh`` has it."""
    host_key: SecretFile
    """File with the server's public key, or several, a line each in OpenSSH's form: nothing else is ever trusted."""
    client_key: SecretFile
    """File with the private key by which the server knows the bus, without a passphrase."""
    patience: float = Field(default=5.0, gt=0, le=60)
    """Seconds to connect and log in; choose less than the system's ``timeout``, so that it counts as not sent."""
    most_bytes: int = Field(default=16_777_216, ge=1, le=268_435_456)
    """Bytes of a file of the partner; larger ones are not read."""
