"""Recorded runs as tables, figures and a report."""
