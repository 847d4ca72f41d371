"""Open a tracking store and classify its errors: shared by writing and reading."""
