"""What keeps the gate from comparing at all."""


class CannotCompareError(Exception):
    """What is to be compared is not there, or not whole; the message says what to do."""
