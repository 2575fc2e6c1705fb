"""Tables, pictures and the page, as the command line makes them of records."""

import csv
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from shoal.analysis import intervals, tables
from shoal.analysis.__main__ import main
from shoal.analysis.records import read_run
from support.record import PNG, record

WON = "test_battle_won_mean"
VOID = {"meta", "img", "br", "hr", "link"}


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 50)


@pytest.fixture
def results(tmp_path):
    """Two algorithms with two seeds on two maps, one run that failed and one that was stopped and resumed."""
    folder = tmp_path / "sacred"
    steps, number = [0, 100, 200], 0
    common = {"env": "smax", "test_interval": 100, "test_nepisode": 32}

    def add(won, status="COMPLETED", model_dir="", at=steps, **config):
        nonlocal number
        number += 1
        series = {WON: (at, won)} if won else {}
        record(folder / str(number), series, status, model_dir, **common, **config)

    for seed in (1, 2):
        for map_name, name, won in (
            ("3m", "qmix", [0, 0.2, 0.4]),
            ("3m", "s2q", [0, 0.5, 0.8]),
            ("8m", "qmix", [0, 0.1, 0.1]),
            ("8m", "s2q", [0, 0.3, 0.6]),
        ):
            won = [w * (1 + seed / 10) for w in won]
            add(won, name=name, seed=seed, env_args={"map_name": map_name})
    add([], "FAILED", name="<b>vdn</b>", seed=1, env_args={"map_name": "3m"})
    add([0, 0.3], "INTERRUPTED", "models/x", [0, 100], name="s2q", seed=3, env_args={"map_name": "3m"})
    add([0.7], "COMPLETED", "models/x", [200], name="s2q", seed=3, env_args={"map_name": "3m"})
    return folder


class Page(HTMLParser):
    """What a page holds."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.sources, self.rows, self.ids, self.text = [], [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.links += [values["href"]] if "href" in values else []
        self.sources += [values["src"]] if "src" in values else []
        self.ids += [values["id"]] if "id" in values else []
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_the_page_holds_everything_and_needs_nothing(results, tmp_path, capsys):
    out = tmp_path / "pages" / "report.html"
    assert main(["report", str(results), "--out", str(out), "--title", "S2Q & QMIX"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    text = out.read_text()
    page = Page(text)
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in page.sources)
    assert len(page.sources) == 6
    assert all(link[0] == "#" and link[1:] in page.ids for link in page.links)
    assert not re.search(r"https?://|@import|url\(|<script", text)

    rows = {tuple(row[:4]): row for row in page.rows}
    assert rows["9", "<b>vdn</b>", "smax", "3m"][5] == "FAILED"  # in the table of runs
    assert rows["9", "<b>vdn</b>", "3m", "1"][4:] == [
        "FAILED",
        f"does not count: it ended before its first value of {WON}",
        "ValueError: too bad",
    ]
    assert rows["10+11", "s2q", "smax", "3m"][5:8] == ["COMPLETED", "200", "3"]
    assert "S2Q & QMIX" in "".join(page.text)
    assert "as it is (a share, 0 to 1)" in "".join(page.text)
    assert "test_nepisode: 32" in "".join(page.text)
    assert "s2q has 3 runs on 3m, 2 runs on 8m" in "".join(page.text)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")
@pytest.mark.slow
def test_a_browser_shows_the_page(results, tmp_path):
    out = tmp_path / "report.html"
    assert main(["report", str(results), "--out", str(out)]) == 0
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    home = f"--user-data-dir={tmp_path / 'browser'}"
    picture = tmp_path / "page.png"
    for more in (["--dump-dom"], [f"--screenshot={picture}", "--window-size=1280,3000"]):
        command = ["chromium", *flags, home, *more, out.as_uri()]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        if more == ["--dump-dom"]:
            assert "Probability of improvement" in shown.stdout
    from PIL import Image

    colours = Image.open(picture).convert("RGB").getcolors(2**24)
    assert len(colours) > 500  # pictures of curves, not a blank page or an error


def test_a_page_without_common_maps_says_so(tmp_path):
    for number, (name, map_name) in enumerate((("qmix", "3m"), ("s2q", "8m"))):
        record(
            tmp_path / "sacred" / str(number),
            {WON: ([0, 100], [0, 1])},
            "COMPLETED",
            name=name,
            seed=1,
            env_args={"map_name": map_name},
        )
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "r.html")]) == 0
    page = Page((tmp_path / "r.html").read_text())
    assert "The algorithms have no task in common (qmix: 3m; s2q: 8m)" in "".join(page.text)
    assert len(page.sources) == 3


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_every_value_in_one_table(results, tmp_path, capsys):
    assert main(["table", str(results), "--out", str(tmp_path / "t"), "--where", "env_args.map_name=3m"]) == 0
    values = read_csv(tmp_path / "t" / "values.csv")
    assert len(values) == 3 * 5
    columns = ["run", "algorithm", "env", "map", "seed", "status", "metric", "t_env", "wall_time", "value"]
    assert list(values[0]) == columns
    (last,) = [v for v in values if v["run"] == "10+11" and v["t_env"] == "200"]
    assert [last[k] for k in ("algorithm", "map", "seed", "status", "metric", "value")] == [
        "s2q",
        "3m",
        "3",
        "COMPLETED",
        WON,
        "0.7",
    ]
    runs = read_csv(tmp_path / "t" / "runs.csv")
    assert [run["run"] for run in runs] == ["1", "2", "5", "6", "9", "10+11"]
    assert (tmp_path / "t" / "runs.md").read_text().splitlines()[0].startswith("| run | algorithm | env | map | seed |")
    assert "| 9 | <b>vdn</b> | smax | 3m | 1 | FAILED |" in capsys.readouterr().out


def test_settings_that_differ_are_columns(tmp_path):
    for number, lr in enumerate((0.1, 0.2)):
        record(tmp_path / str(number), {WON: ([0], [0])}, "COMPLETED", lr=lr, seed=1)
    values = tables.tidy([read_run(tmp_path / "0"), read_run(tmp_path / "1")], [WON])
    assert values["lr"].tolist() == [0.1, 0.2]
    assert values["algorithm"].tolist() == ["s2q (lr=0.1)", "s2q (lr=0.2)"]


def test_curves_and_their_table(results, tmp_path, capsys):
    out = tmp_path / "c.png"
    assert main(["curves", str(results), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(PNG)
    points = {(p["algorithm"], p["map"], int(p["t_env"])): p for p in read_csv(tmp_path / "c.csv")}
    assert float(points["qmix", "3m", 200]["mean"]) == pytest.approx(0.4 * 1.15)
    assert float(points["qmix", "3m", 200]["low"]) == pytest.approx(0.44)
    assert float(points["qmix", "3m", 200]["high"]) == pytest.approx(0.48)
    assert points["s2q", "3m", 100]["runs"] == "3"
    err = capsys.readouterr().err
    assert "note: run 9 (<b>vdn</b> on 3m) does not count: it ended before its first value" in err
    assert "intervals of so few are narrower" in err
    assert main(["curves", str(results), "--over", "hours", "--out", str(out)]) == 0


def test_aggregates_and_their_tables(results, tmp_path, capsys):
    out = tmp_path / "a"
    assert main(["aggregate", str(results), "--out", str(out)]) == 0
    names = ("aggregates", "profiles", "improvements", "efficiency")
    assert all((out / f"{name}.png").read_bytes().startswith(PNG) for name in names)
    assert all((out / f"{name}.{kind}").exists() for name in (*names, "scores") for kind in ("csv", "md"))
    means = {row["algorithm"]: float(row["mean"]) for row in read_csv(out / "aggregates.csv")}
    assert means["qmix"] == pytest.approx((0.44 + 0.48 + 0.11 + 0.12) / 4)
    (pair,) = read_csv(out / "improvements.csv")
    assert (pair["algorithm"], pair["over"], float(pair["probability"])) == ("s2q", "qmix", 1.0)
    efficiency = {(row["algorithm"], row["map"]): row for row in read_csv(out / "efficiency.csv")}
    assert (efficiency["s2q", "3m"]["reached"], float(efficiency["s2q", "3m"]["median steps"])) == ("3", 100)
    assert (efficiency["qmix", "3m"]["reached"], efficiency["qmix", "3m"]["median steps"]) == ("0", "")
    for kind in (capsys.readouterr().out, (out / "aggregates.md").read_text()):
        assert f"Normalisation: {WON} as it is (a share, 0 to 1)." in kind


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["curves", "nowhere"], "There is no folder nowhere"),
        (["curves", "{results}", "--metric", "test_wins"], "No run recorded 'test_wins'"),
        (["table", "{results}", "--metric", "test_wins"], "No run recorded 'test_wins'"),
        (["aggregate", "{results}", "--score", "absolute"], "has no absolute metric"),
        (["curves", "{results}", "--out", "{results}/missing/c.png"], "cannot be written"),
        (["curves", "{results}", "--out", "c.text"], "no known format"),
        (["aggregate", "{results}", "--out", "{results}/1/config.json"], "cannot be made"),
        (["report", "{results}", "--out", "{results}"], "cannot be written"),
        (["report", "{results}", "--where", "name=<b>vdn</b>"], "No run recorded"),
        (["aggregate", "{results}", "--bounds", "1"], "--bounds 1 was not understood"),
    ],
)
def test_bad_input_gets_one_sentence(results, args, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([arg.replace("{results}", str(results)) for arg in args]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: ")]
    assert line.startswith("error: ")
    assert said in line


def test_cells_for_people():
    cells = {None: "-", math.nan: "-", 12345: "12,345", 0.25: "0.250", 0.0: "0", 123456.7: "123,457", 0.0001: "0.0001"}
    assert [tables.cell_text(value) for value in cells] == list(cells.values())
