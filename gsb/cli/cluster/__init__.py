"""Commands for what a bus stands on: moving it, restoring it, its topics."""
