"""The broker on Apache Kafka, in parts: see ``gsb.broker.kafka.broker``."""

from gsb.broker.kafka.broker import KafkaBroker

__all__ = ["KafkaBroker"]
