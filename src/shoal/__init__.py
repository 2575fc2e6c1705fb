"""Shoal trains teams of cooperating agents (multi-agent reinforcement learning) in the PyMARL style."""

__version__ = "0.1.0"
