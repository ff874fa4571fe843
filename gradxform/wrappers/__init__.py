"""How an optimizer runs: on which parameters, when, stored how, averaged how. Each is a
transformation around another one.
"""
