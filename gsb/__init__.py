"""Government Service Bus: signed, schema-checked, provable exchanges between core systems."""

__version__ = "0.1.0"
