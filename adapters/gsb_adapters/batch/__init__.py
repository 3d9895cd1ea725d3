"""What adapters share that exchange files with a partner over SFTP. It is no adapter: it has no manifest.

Derive the adapter's settings from ``SftpSettings``, or from ``FolderSettings`` if the partner has an inbox and an
outbox, and make one connection for each call:

    async with connected(self.context.settings) as remote:
        await remote.put(f"inbox/{name}.xml", content, acts=True)    # whole or not at all, and never twice
        for name in await remote.names("outbox", 100):
            content = await remote.read(f"outbox/{name}")            # None: somebody else took it
            ...
            await remote.move(f"outbox/{name}", f"read/{name}")      # False: somebody else did

Whatever fails becomes ``Unavailable``; ``sent`` is False until the last step of a ``put`` that ``acts``. Files appear
under their names only when they are whole, ours as the partner's, so none is read half: names that begin with a dot
are not there yet. What a crash leaves is such a name, which nobody reads.
"""

from gsb_adapters.batch.folders import FolderSettings, Outgoing, noted
from gsb_adapters.batch.remote import Remote, connected
from gsb_adapters.batch.settings import SftpSettings

__all__ = ["FolderSettings", "Outgoing", "Remote", "SftpSettings", "connected", "noted"]
