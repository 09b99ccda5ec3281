"""Metrics, figures, and the command line that scores the deployed models."""
