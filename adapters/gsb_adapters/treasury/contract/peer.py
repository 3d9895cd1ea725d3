"""The bank's SFTP server, for the contract suite."""

from gsb_adapters.batch.peer import serve

serve("inbox", "archive", "outbox", "bus/sent", "bus/notes", "bus/read", "bus/unmatched")
