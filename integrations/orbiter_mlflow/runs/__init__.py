"""Read runs back from a tracking store."""
