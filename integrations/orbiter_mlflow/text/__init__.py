"""Text that others wrote, addresses, times, numbers: how values are read and shown safely."""
