"""Measures of the bus against the bare thing, in the same run, so that a machine's speed does not matter."""
