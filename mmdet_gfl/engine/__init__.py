"""Hooks, and the start of a training or a test."""
