"""A config as params, as text, and back."""
