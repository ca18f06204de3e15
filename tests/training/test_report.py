"""`axtrain report`: the page holds the run's figures, needs nothing else, runs nothing, and fits a phone and paper."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import keras
import mlflow
import numpy as np
import pytest
from matplotlib import pyplot
from shell import fine, refused

import axtrain as ax
from axtrain.training.evaluation import Evaluation
from axtrain.training.report.folder import read_folder
from axtrain.training.report.numbers import sweep_headlines
from axtrain.training.report.page import render
from axtrain.training.report.run import Run, write_figures
from axtrain.training.search.results import SearchPoint, SearchResult
from axtrain.training.sweep.requirements import Requirement
from axtrain.training.sweep.results import Sweep, SweepPoint

NASTY = '<script>alert(1)</script><img src=x onerror="alert(1)">'
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """What a browser would see: every element with its attributes, and the text outside of style sheets."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self._open = [], [], []
        self.feed(text)
        self.close()
        assert self._open == [], f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" not in self._open:
            self.text.append(data)

    def found(self, name):
        return [attributes for tag, attributes in self.elements if tag == name]

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def measured(*accuracies, samples=50):
    return Evaluation(np.array(accuracies), 0, samples)


def assignment(energy_pj, mean, *names, **kwargs):
    layers = dict(zip(("hidden", "classes"), names, strict=False))
    saving = 1 - energy_pj / 4000
    kwargs = {"predicted": 0.0, "evaluation": measured(mean), **kwargs}
    return SearchPoint(assignment=layers, energy_pj=energy_pj, saving=saving, **kwargs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with everything that the commands leave, and names that are markup."""
    folder = tmp_path_factory.mktemp("work") / "a run <b>"
    folder.mkdir()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 6)).astype("float32")
    keras.utils.set_random_seed(5)
    layers = keras.layers
    network = keras.Sequential(
        [keras.Input((6,)), layers.Dense(16, "relu", name="hidden"), layers.Dense(3, name="<i>classes")]
    )
    memory = ax.memories.NearThresholdSRAM(voltage=0.5)
    hardware = ax.Hardware(multiplier=ax.multipliers.get("drum4"), weight_memory=memory, name=NASTY)
    noisy = ax.convert(network, hardware, calibration=x)
    ax.export(noisy, folder / "export", accuracy=measured(0.75, 0.8125))
    hardware.to_json(folder / "hardware.json")
    write_figures(
        folder / "figures.json",
        evaluations={"clean": measured(0.9876), "before": measured(0.5, 0.6), "after": measured(0.75, 0.8125)},
        trainings={NASTY: {"loss": [0.7, 0.4], "accuracy": [0.5, 0.9], "noise_strength": [0.5, 1.0]}},
        command={
            "command": f"axtrain demo --out '{NASTY}'",
            "settings": {"chips": 20, NASTY: NASTY},
            "versions": {"axtrain": "9.8.7"},
            "finished": "2020-02-02 02:02 UTC",
        },
    )
    points = [
        SweepPoint(evaluation=measured(*chips), voltage=voltage, rate=rate, energy_pj=1e3 * voltage, saving=0.25)
        for voltage, rate, chips in ((0.7, 1e-5, (0.96, 0.98)), (0.55, 1e-3, (0.955, 0.977)), (0.4, 0.1, (0.31, 0.5)))
    ]
    sweep = Sweep(points=points, notes=(f"a note {NASTY}",))
    cheap, dear = assignment(1000, 0.91, "drum3", "drum4"), assignment(3000, 0.94, NASTY, NASTY)
    exact = assignment(4000, 0.95)
    search = SearchResult(points=(cheap, dear), exact=exact, best=cheap, budget=0.05, rises="measured")
    for name, found in (("sweep", sweep), ("search", search)):
        (folder / name).mkdir()
        (folder / name / f"{name}.json").write_text(json.dumps(found.to_dict()))
        found.plot().savefig(folder / name / f"{name}.png")
    ax.plots.training_figure({"loss": [1.0, 0.5]}).savefig(folder / "own.png")
    (folder / "damaged.json").write_text("{")
    (folder / "other.json").write_text('{"format": "of someone else"}')
    (folder / "kept").mkdir()
    (folder / "kept" / "chip.json").write_text("{")
    return folder


@pytest.fixture(scope="module")
def text(folder):
    return render(read_folder(folder))


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_the_large_numbers_are_the_runs(page, folder):
    saving = ax.energy(ax.load_model(folder / "export" / "model.keras")).saving
    figures = "98.76 % clean: in float, without hardware 78.12 % after: mean of 2 chips 75.00 % after: worst chip of 2"
    assert f"{figures} {100 * saving:.1f} % less energy per inference, modelled" in page.words


def test_every_kind_of_result_is_there(page):
    words = page.words
    titles = ("Hardware", "Accuracy", "Sweep of the supply voltage", "Search", "Energy", "Training", "Layers")
    for title in (*titles, "Multiplier", "Pictures of the run", "How it was made"):
        assert f" {title} " in words
    assert "before 55.00 7.07 50.00" in words  # mean, spread, worst chip
    assert "8 bits, in near-threshold SRAM at 0.5 V: 1.1 % of the bits are wrong" in words
    assert "0.55 V lowest voltage within one point of the mildest 96.60 % mean at 0.55 V 95.50 % worst chip" in words
    assert "0.400 1.0e-01 40.50 13.44 31.00 0.4 25.0" in words
    assert "95.00 % all layers exact 91.00 % the chosen assignment 75.0 % less energy" in words
    assert "chosen: drum3 (1), drum4 (1) 1 75.0 91.00 91.00 -" in words
    assert "all 2 files are as they were exported" in words
    for expected in ("axtrain demo --out", "chips 20", "axtrain 9.8.7", "2020-02-02 02:02 UTC", "Damaged.json"):
        assert expected.lower() in words.lower()
    assert "kept/chip" not in words


def test_nothing_is_fetched(text, page):
    bare = re.sub(r"data:image/png;base64,[\w+/=\s]+", "", text)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", bare)
    for _, attributes in page.elements:
        for name in ("src", "href", "data", "action"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))


def test_names_that_are_markup_stay_words(page):
    assert page.found("script") == []
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert [image["alt"] for image in page.found("img")] == ["picture own"]
    assert page.words.count(NASTY) >= 6
    assert "<i>classes" in page.words
    (policy,) = [meta["content"] for meta in page.found("meta") if meta.get("http-equiv")]
    assert policy.startswith("default-src 'none'")


def test_pictures_speak_and_their_ids_are_their_own(page):
    pictures = page.found("svg")
    assert len(pictures) == 7  # chips, sweep, search, energy, training, weights, multiplier
    assert all(one["role"] == "img" and len(one["aria-label"]) > 20 for one in pictures)
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    used = {attributes["href"][1:] for tag, attributes in page.elements if attributes.get("href", "").startswith("#")}
    used |= {one for _, each in page.elements for one in re.findall(r"url\(#([^)]+)\)", " ".join(each.values()))}
    assert used and used <= set(names)
    assert pyplot.get_fignums() == []


def test_tables_have_heads_and_numbers_to_the_right(page):
    assert len(page.found("table")) == len(page.found("caption")) >= 8
    assert {"scope": "col", "class": "number"} in page.found("th")
    assert all(box["tabindex"] == "0" for box in page.found("div") if box.get("class") == "table")


def test_a_sweep_alone_leads_with_its_own_figures(folder):
    words = Page(render(read_folder(folder / "sweep"))).words
    assert words.index("0.55 V lowest voltage") < words.index("Sweep of the supply voltage")
    assert words.count("lowest voltage within") == 1


def headlines_of(**given):
    points = [
        SweepPoint(evaluation=measured(*chips), voltage=voltage, saving=0.25)
        for voltage, chips in ((0.5, (0.78, 0.8)), (0.46, (0.775, 0.795)))
    ]
    return [f"{one.figure} {one.unit} {one.words}" for one in sweep_headlines(Sweep(points=tuple(points), **given))]


def test_a_sweep_without_a_safe_voltage_leads_with_that():
    first, mean, worst, clean = headlines_of(fault_free=0.87)
    assert first == "none  of the swept voltages is safe: none is within one point of the hardware without faults"
    assert (mean, worst) == (
        "79.00 % mean at 0.5 V, the mildest swept",
        "78.00 % worst chip at 0.5 V, the mildest swept",
    )
    assert clean == "87.00 % without faults"
    edge = ", the last swept: lower ones were not measured"
    assert (
        headlines_of(fault_free=0.79)[0]
        == f"0.46 V lowest voltage within one point of the hardware without faults{edge}"
    )
    assert headlines_of()[0] == f"0.46 V lowest voltage within one point of the mildest{edge}"  # an older file


def test_a_sweep_leads_with_what_was_required_of_it():
    worst = Requirement(accuracy=0.78, worst=True)
    assert headlines_of(requirement=worst)[0] == "0.5 V lowest voltage that keeps the worst chip at 78.00 % or more"
    none = Requirement(accuracy=0.79, chip_yield=0.95)
    assert (
        headlines_of(requirement=none)[0]
        == "none  of the swept voltages is safe: none keeps 95 % of the chips at 79.00 % or more"
    )


def test_the_command(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fine("report", folder / "search") == "Wrote axtrain_report.html\n"
    assert "91.00 % the chosen assignment" in Page((tmp_path / "axtrain_report.html").read_text()).words
    assert "nothing to report in this folder" in refused("report", folder / "kept")
    assert "32 hexadecimal digits" in refused("report", "nowhere")
    assert "no MLflow store at" in refused("report", "0" * 32, "--tracking-uri", f"sqlite:///{tmp_path}/none.db")
    assert {path.name for path in tmp_path.iterdir()} == {"axtrain_report.html"}


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")
def test_a_tracked_run(experiment, noisy, data, tmp_path):
    hardware = ax.Hardware(weight_memory=ax.memories.BitErrors(rate=0.05))
    with mlflow.start_run(run_name="parent <b>") as run:
        mlflow.log_params({"optimizer": "Adam", "epochs": 3})
        for epoch, loss in enumerate((0.9, 0.5, 0.3)):
            mlflow.log_metrics({"resilient.loss": loss, "resilient.noise_strength": (epoch + 1) / 3}, step=epoch)
        mlflow.log_metrics({"clean": 0.9812, "energy_saving": 0.404})
        mlflow.log_dict(hardware.to_dict(), "hardware.json")
        ax.tracking.log_evaluation(measured(0.71, 0.83), "after")
        ax.export(noisy, tmp_path / "exported", accuracy=measured(0.71, 0.83))
        mlflow.log_artifacts(str(tmp_path / "exported"), "export")
        with mlflow.start_run(run_name="child", nested=True):
            mlflow.log_metric("worst", 0.4321)
            mlflow.log_dict(measured(0.61, 0.62).to_dict(), "evaluation.json")
    before = mlflow.get_run(run.info.run_id).to_dictionary()
    assert fine("report", run.info.run_id, "--out", tmp_path / "page.html").startswith("Wrote")
    words = Page((tmp_path / "page.html").read_text()).words
    assert mlflow.get_run(run.info.run_id).to_dictionary() == before
    for expected in (
        "98.12 % clean", "77.00 % after: mean of 2 chips", "71.00 % after: worst chip", "parent <b>", "finished",
        "optimizer Adam", "child finished worst 0.4321", "child/evaluation 61.50", "5 % of the bits are wrong",
        "all 2 files are as they were exported", "Training resilient",
    ):  # fmt: skip
        assert expected in words
    assert "Export export" in words
    assert "MLflow has no such run" in refused("report", "0" * 32, "--out", tmp_path / "none.html")


def test_a_run_without_anything_but_settings():
    run = Run(name="empty", where="nowhere", settings={"parameters": {"epochs": "3"}})
    assert not run.empty
    words = Page(render(run)).words
    assert "epochs 3" in words and "Accuracy" not in words


class TestChromium:
    """In a real browser."""

    @pytest.fixture(autouse=True)
    def _browser(self):
        if CHROMIUM is None:
            pytest.skip("no chromium or chrome on this machine")

    @staticmethod
    def browse(path, *options):
        sandbox = ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={path.parent / 'profile'}")
        command = [CHROMIUM, *sandbox, "--virtual-time-budget=5000", *options, path.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def test_it_fits_a_phone(self, text, tmp_path):
        """In a frame of 360 pixels, since a window has 500 at least; nothing but tables and commands scrolls."""
        open_to_scripts = re.sub("<meta http-equiv[^>]*>", "", text)
        script = """addEventListener("load", () => {
          const frame = document.querySelector("iframe").contentWindow, root = frame.document.documentElement
          const wide = [...frame.document.querySelectorAll("body *")].filter(element =>
            !element.closest(".table, pre, svg") && element.getBoundingClientRect().right > frame.innerWidth)
          document.title = JSON.stringify({inner: frame.innerWidth, scroll: root.scrollWidth,
            wide: wide.map(element => element.outerHTML.slice(0, 80))})
        })"""
        framed = f'<iframe style="width:360px;height:740px;border:0" srcdoc="{html.escape(open_to_scripts)}"></iframe>'
        (tmp_path / "frame.html").write_text(f"<title></title><body>{framed}<script>{script}</script>")
        seen = self.browse(tmp_path / "frame.html", "--dump-dom")
        found = json.loads(html.unescape(re.search("<title>(.*?)</title>", seen, re.S)[1]))
        assert found["inner"] == 360
        assert found["scroll"] <= 360 and found["wide"] == []

    @pytest.mark.parametrize("size", [(500, 740), (1280, 900)])
    def test_it_shows_something_without_network(self, text, tmp_path, size):
        from PIL import Image

        (tmp_path / "page.html").write_text(text)
        options = (f"--window-size={size[0]},{size[1]}", "--host-resolver-rules=MAP * ~NOTFOUND")
        self.browse(tmp_path / "page.html", f"--screenshot={tmp_path / 'page.png'}", *options)
        with Image.open(tmp_path / "page.png") as shot:
            assert shot.size == size
            assert len(shot.convert("RGB").getcolors(1 << 24)) > 50  # text and cards, no blank page

    def test_it_prints(self, text, tmp_path):
        (tmp_path / "page.html").write_text(text)
        self.browse(tmp_path / "page.html", f"--print-to-pdf={tmp_path / 'page.pdf'}", "--no-pdf-header-footer")
        printed = (tmp_path / "page.pdf").read_bytes()
        assert printed.startswith(b"%PDF-")
        assert len(re.findall(rb"/Type /Page\b", printed)) >= 3
