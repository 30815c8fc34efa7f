"""The HTTP interface as an OpenAPI document, generated from the protocol's types and one table of endpoints."""
