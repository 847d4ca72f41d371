"""SFT, DPO, GRPO and reward models on TRL's own trainers; imports TRL where it is used."""

from orbiter.train.trl.config import TRLConfig
from orbiter.train.trl.trainer import TRLTrainer

__all__ = ["TRLConfig", "TRLTrainer"]
