"""The commands behind `make`: they write what is committed. Tests only read."""
