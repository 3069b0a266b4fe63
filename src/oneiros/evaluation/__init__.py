"""How good a model is, measured."""
