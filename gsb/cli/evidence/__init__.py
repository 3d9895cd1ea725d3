"""Commands around the evidence log."""
