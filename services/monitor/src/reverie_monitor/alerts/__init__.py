"""From measurements to alerts that begin and end once."""
