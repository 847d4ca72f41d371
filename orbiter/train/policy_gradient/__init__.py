"""A reference backend: REINFORCE on a bandit, small enough to read in one sitting."""

from orbiter.train.policy_gradient.config import PolicyGradientConfig
from orbiter.train.policy_gradient.policy import SoftmaxPolicy
from orbiter.train.policy_gradient.trainer import PolicyGradientTrainer

__all__ = ["PolicyGradientConfig", "PolicyGradientTrainer", "SoftmaxPolicy"]
