"""The customs system's SFTP server, for the contract suite."""

from gsb_adapters.batch.peer import serve

serve("inbox", "archive", "outbox", "bus/batches", "bus/lodged", "bus/acknowledged", "bus/read")
