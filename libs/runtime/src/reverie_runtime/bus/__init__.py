"""The bus port and its adapters."""
