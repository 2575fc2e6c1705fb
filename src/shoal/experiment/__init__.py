"""One run, start to finish: build, collect, train, evaluate, save. Nothing algorithmic."""

from shoal.experiment.experiment import Experiment
from shoal.experiment.progress import Progress, summary
from shoal.experiment.settings import ExperimentSettings

__all__ = ["Experiment", "ExperimentSettings", "Progress", "summary"]
