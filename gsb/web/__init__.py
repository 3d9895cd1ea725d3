"""The edge: HTTP in, signed answers out. It decides nothing; admission and hand-out do."""
