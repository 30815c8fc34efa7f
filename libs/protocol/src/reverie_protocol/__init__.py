"""Every message, record, NATS subject and error code of Reverie, defined once."""
