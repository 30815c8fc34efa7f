"""Test equipment: real servers as fixtures, conformance suites, tiny models."""
