"""Benchmarks of neighbours: what one agency, or one core system, costs the others."""
