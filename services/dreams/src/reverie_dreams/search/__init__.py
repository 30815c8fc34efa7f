"""The search as a pure fold of a session's log."""
