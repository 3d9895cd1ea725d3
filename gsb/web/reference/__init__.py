"""The API described to its callers: OpenAPI, and pages to read."""
