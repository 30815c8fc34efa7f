"""Where outputs and uploads live: a storage port and its adapters."""
