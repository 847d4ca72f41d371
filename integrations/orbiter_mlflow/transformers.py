"""Report the loops of transformers and TRL to a tracked trainer; needs transformers."""

from orbiter.train.huggingface import ReportCallback, StopCallback

__all__ = ["ReportCallback", "StopCallback"]
