"""Moves work to workers and wakes who waits. It carries ids only, and may lose or repeat them."""
