"""Environments: each one a `gymnasium.Env` for the whole team, one file per suite.

A suite (JAX, PettingZoo, a game) is imported when its environment is built, never when this package is.
"""
