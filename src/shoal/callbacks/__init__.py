"""Looking at a run while it trains: what is called when, and two callbacks that ship."""

from shoal.callbacks.callback import Callback
from shoal.callbacks.csv_file import CSV
from shoal.callbacks.weights_and_biases import Wandb

__all__ = ["CSV", "Callback", "Wandb"]
