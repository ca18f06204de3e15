"""The commands of `axtrain`, one module for each kind of work."""
