"""Files that several processes share: locks, descriptors, reserved space, atomic writes."""
