"""What every Reverie service stands on: bus, settings, logs, metrics, health, lifecycle."""
