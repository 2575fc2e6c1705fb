"""What is no learner: it has a learner's settings, and nothing else."""

from shoal.learners.learner import LearnerSettings


class Idle:
    """Learns nothing."""

    Settings = LearnerSettings

    def __init__(self, settings, spec, make):
        pass

    @classmethod
    def check_controller(cls, controller):
        """Any."""
