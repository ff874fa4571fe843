"""Equations on one array, and the transformations that they make: one file for each idea."""
