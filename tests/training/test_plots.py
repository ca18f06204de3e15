import numpy as np
import pytest
from matplotlib import pyplot

from axtrain.training.evaluation import Evaluation
from axtrain.training.plots import chips_figure


@pytest.fixture
def figure():
    before = Evaluation(np.array([0.7, 0.5, 0.6]), 0, 100)
    after = Evaluation(np.array([0.9, 0.95, 0.85]), 0, 100)
    return chips_figure(0.97, before, after, {"exact": 161.2, "described": 73.4}, title="Digits")


def test_every_chip_is_drawn_worst_first(figure):
    chips = figure.axes[0]
    before, after, clean = chips.get_lines()
    np.testing.assert_allclose(before.get_ydata(), [50, 60, 70])
    np.testing.assert_allclose(after.get_ydata(), [85, 90, 95])
    np.testing.assert_array_equal(before.get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(after.get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(clean.get_ydata(), [97, 97])


def test_the_legend_holds_the_figures(figure):
    legend = figure.axes[0].get_legend() or figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [
        "conventional: mean 60.0 %, worst 50.0 %",
        "trained for it: mean 90.0 %, worst 85.0 %",
        "conventional in float: 97.0 %",
    ]


def test_bars_are_the_energies(figure):
    energy = figure.axes[1]
    assert [bar.get_height() for bar in energy.patches] == [161.2, 73.4]
    assert [label.get_text() for label in energy.get_xticklabels()] == ["exact", "described"]
    assert {text.get_text() for text in energy.texts} == {"161", "73"}
    assert "nJ" in energy.get_ylabel()


def test_it_is_titled_and_nothing_stays_open(figure):
    assert figure.get_suptitle() == "Digits"
    assert pyplot.get_fignums() == []


def test_it_draws(figure, tmp_path):
    figure.savefig(tmp_path / "chips.png")
    assert (tmp_path / "chips.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
