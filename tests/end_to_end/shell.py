"""The `axtrain` command in this process, as a user meets it."""

import inspect

from click.testing import CliRunner

from axtrain.training.command_line import main

# Click 8.1 mixes the two streams where it is not told otherwise; later ones never do, and have no such option.
APART = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}


def axtrain(*arguments):
    return CliRunner(env={"COLUMNS": "100"}, **APART).invoke(main, [str(argument) for argument in arguments])


def fine(*arguments):
    result = axtrain(*arguments)
    assert result.exit_code == 0, result.output + result.stderr
    return result.stdout


def refused(*arguments):
    """The one line that a bad input ends with."""
    result = axtrain(*arguments)
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.output
    # MLflow 3.1 tells how it makes its database.
    lines = [line for line in result.stderr.strip().splitlines() if not line.startswith("INFO  [")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    return lines[0]
