"""The run file: the other one of the two files that a language model is."""
