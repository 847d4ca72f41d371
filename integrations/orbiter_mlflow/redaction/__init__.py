"""Find secrets in texts and under names, and redact them."""
