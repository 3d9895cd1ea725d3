"""Measures of the bus beyond one machine: over PostgreSQL and Kafka, against their own speed in the same run."""
