"""Optax: every name of it, its states, its tree functions."""
