"""A package, so that a file here may bear the name of a file in tests/unit."""
