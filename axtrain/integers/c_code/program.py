"""The example program beside a generated network: input codes from a file, output codes to another."""

from __future__ import annotations

from string import Template

_PROGRAM = Template("""\
/*
 * Runs $name on input codes:   $name INPUTS OUTPUTS   or   $name < INPUTS > OUTPUTS
 * Both are raw int8 codes, one sample after another. Written by axtrain; compile it with
 *   cc -std=c99 -O2 ${name}_test.c $name.c -o $name
 */
#define ${upper}_NO_DATA
#include "$name.h"

#include <stdio.h>

int main(int count, char **arguments)
{
    static int8_t input[${upper}_INPUT_SIZE];
    static int8_t output[${upper}_OUTPUT_SIZE];
    FILE *source = stdin;
    FILE *target = stdout;
    if (count == 3) {
        source = fopen(arguments[1], "rb");
        target = source == NULL ? NULL : fopen(arguments[2], "wb");
    }
    if ((count != 1 && count != 3) || source == NULL || target == NULL) {
        fprintf(stderr, "usage: %s [INPUTS OUTPUTS]; both must open\\n", arguments[0]);
        return 2;
    }
    size_t length = fread(input, 1, sizeof input, source);
    while (length == sizeof input) {
        ${name}_run(input, output);
        if (fwrite(output, 1, sizeof output, target) != sizeof output) {
            fprintf(stderr, "cannot write the output\\n");
            return 1;
        }
        length = fread(input, 1, sizeof input, source);
    }
    if (length != 0) {
        fprintf(stderr, "the last sample has %lu of ${upper}_INPUT_SIZE codes\\n", (unsigned long)length);
        return 1;
    }
    return fclose(target) == 0 ? 0 : 1;
}
""")


def example_program(name: str) -> str:
    """C of a `main` around `NAME_run`."""
    return _PROGRAM.substitute(name=name, upper=name.upper())
