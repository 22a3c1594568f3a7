"""Single files: committed, sealed, compressed, trusted or refused."""
