"""A session at work: its log, its drafts, its rendering."""
