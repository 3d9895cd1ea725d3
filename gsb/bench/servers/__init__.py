"""Servers that the bus runs on beyond one machine, started and ended here: for benchmarks, demonstrations and tests."""
