"""What is generated from the protocol: JSON Schema, AsyncAPI, TypeScript and the table of error codes."""
