"""`python -m axtrain` and the `axtrain` command."""

from axtrain.training.command_line import main

if __name__ == "__main__":
    main(prog_name="axtrain")
