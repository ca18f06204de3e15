"""An export that is killed at any moment, again and again: the old or the new one lies there whole."""

import json

import fresh
import pytest

# Each trial is a process of its own, forked before TensorFlow has run an operation.
CHAIN = """
import itertools, json, os, random, signal, sys, time
import axtrain as ax
import axtrain.exporting, axtrain.layers, axtrain.loading

model, out, which, count = sys.argv[1], sys.argv[2], getattr(signal, sys.argv[3]), int(sys.argv[4])
random.seed(0)

def forked(number, begun):
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            network = ax.load_model(model)
            begun.write_text("")
            ax.export(network, out, accuracy=number, overwrite=True, formats=("memory",))
            os._exit(0)
        except KeyboardInterrupt:
            os._exit(7)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    return child

def status(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

from pathlib import Path

begun = Path(out).parent / "begun"
before = time.monotonic()
assert status(forked(0, begun)) == 0
begun.unlink()
last, length, ended = 0, None, {}
for number in itertools.count(1):
    child = forked(number, begun)
    while not begun.exists():
        time.sleep(0.001)
    start = time.monotonic()
    if length is not None:
        time.sleep(random.uniform(0, length))
        os.kill(child, which)
    code = status(child)
    if length is None:
        length = 0.9 * (time.monotonic() - start)
    ended[code] = ended.get(code, 0) + 1
    begun.unlink()
    there = ax.read_export(out).manifest["accuracy"]
    assert there in (last, number) and (code != 0 or there == number), (there, last, number, code)
    last = there
    if number % 10 == 0:  # the retry works, and takes away what was left behind
        assert status(forked(1000 + number, begun)) == 0
        begun.unlink()
        assert sorted(os.listdir(Path(out).parent)) == ["deploy", "model.keras"], os.listdir(Path(out).parent)
        last = ax.read_export(out).manifest["accuracy"]
        assert last == 1000 + number
    if sum(ended.values()) - ended.get(0, 0) == count:
        break
print(json.dumps(ended))
"""


@pytest.mark.slow  # each step of the replacement is interrupted in tests/noise_models/test_files.py
@pytest.mark.parametrize("which, code", [("SIGKILL", -9), ("SIGINT", 7)])
def test_a_chain_of_kills_leaves_the_old_or_the_new_export(which, code, tmp_path):
    import keras
    import numpy as np

    import axtrain as ax

    plain = keras.Sequential([keras.Input((40,)), keras.layers.Dense(64), keras.layers.Dense(3, name="out")])
    ax.convert(plain, ax.Hardware(), np.eye(40, dtype="float32")).save(tmp_path / "model.keras")
    done = fresh.run(CHAIN, tmp_path / "model.keras", tmp_path / "deploy", which, 50)
    assert done.returncode == 0, done.stderr[-3000:]
    ended = json.loads(done.stdout)
    # Ctrl-C within a library's C code can be another error there, or even end the process; the files are whole still.
    assert ended[str(code)] >= 40 and (which == "SIGINT" or set(ended) <= {"0", str(code)}), ended
