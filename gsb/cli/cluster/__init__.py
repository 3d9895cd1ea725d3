"""Commands for a bus beyond one machine."""
