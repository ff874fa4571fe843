"""The command `gradxform`: `compare`, `sweep`, `list` and `show`.

Flax, scikit-learn, rich, matplotlib and pandas are imported only here, and only when a command
needs them.
"""
