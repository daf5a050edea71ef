"""The report in a real browser: it renders, says nothing on the console, loads nothing, and answers to the keyboard.

`make test` installs chromium where it can (.ci/environment.sh); where there is no browser these are skipped.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.checks import judge
from harness.compare import release
from harness.history import History
from harness.report import render
from tests.support import every_feed
from tests.unit.test_compare import Site
from tests.unit.test_release import folder

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser: apt-get install chromium")

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # root has no user namespace of its own to put a page into
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--enable-logging=stderr",
)

LOOK = """
  const time = document.getElementById("time");
  const press = (key, more) => {
    time.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...more }));
  };
  const mark = (lane, css) => document.querySelector(`g.lane[data-name="${lane}"] rect.${css}`);
  const bounds = rect => ["x", "width"].map(key => Number(rect.getAttribute(key)));
  const ticks = () => [...document.querySelectorAll(".ticks text")].map(text => text.textContent);
  const now = () => Number(time.getAttribute("aria-valuenow"));
  // by its rule: the window may not be active yet, and then nothing in it is :focus-visible
  const rules = [...document.styleSheets].flatMap(sheet => [...sheet.cssRules]);
  const ring = element => rules.filter(rule => rule.style?.outline)
    .filter(rule => element.matches(rule.selectorText.replaceAll(":focus-visible", ":is(*)")))
    .map(rule => rule.style.outline).pop() ?? null;
"""


@dataclass(frozen=True)
class Seen:
    """What the script told, what the console said, what the page loaded, and the document as it was at the end."""

    told: Any
    console: list[str]
    loaded: list[str]
    document: str


Browse = Callable[..., Seen]


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    def browse(page: str, script: str = "return null", width: int = 1280) -> Seen:
        report = tmp_path / "report.html"
        tell = (
            f"const told = (() => {{ {LOOK} {script} }})();\n"
            'const loaded = performance.getEntriesByType("resource").map(each => each.name);\n'
            'const out = document.createElement("output"); out.id = "told";\n'
            "out.textContent = JSON.stringify({ told, loaded }); document.body.append(out);"
        )
        report.write_text(page.replace("</body>", f"<script>{tell}</script></body>"))
        flags = [*FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},1000", "--dump-dom"]
        done = subprocess.run(
            [str(BROWSER), *flags, report.as_uri()], capture_output=True, text=True, timeout=180, check=True
        )
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        found = re.search(r'<output id="told">(.*?)</output>', done.stdout, re.DOTALL)
        assert found, (done.stdout[-500:], console)
        told = json.loads(html.unescape(found[1]))
        return Seen(told["told"], console, told["loaded"], done.stdout)

    return browse


@pytest.fixture(scope="module")
def page() -> str:
    history = every_feed.history()
    verdicts = judge(history, {name: {} for name in ("ownership", "outage", "recovery")})
    return render(history, verdicts, "A power cut", "It holds.", {"seed": 1, "command": "monkeywrench run x"})


def test_it_renders_in_silence_and_loads_nothing(page: str, browse: Browse) -> None:
    seen = browse(
        page,
        """
        const all = [...document.querySelectorAll("svg.time rect, svg.time path.curve")];
        const drawn = all.filter(each => !each.closest("defs") && each.getAttribute("visibility") !== "hidden");
        return {
          h1: document.querySelector("h1").textContent, marks: drawn.length,
          empty: drawn.filter(each => !each.getBoundingClientRect().width).map(each => each.outerHTML),
          height: document.querySelector("svg.time").getBoundingClientRect().height,
          tools: !document.querySelector(".tools").hidden, overflow: document.documentElement.scrollWidth - innerWidth,
        };
        """,
    )
    assert (seen.console, seen.loaded) == ([], [])
    assert seen.told["h1"] == "The cluster held."
    assert seen.told["marks"] > 50
    assert seen.told["empty"] == []
    assert seen.told["height"] > 500
    assert seen.told["tools"] is True
    assert seen.told["overflow"] <= 0


def test_what_would_load_something_is_stopped_and_seen(page: str, browse: Browse) -> None:
    seen = browse(page.replace("</h1>", '</h1><img src="https://example.test/x.png">'))
    assert any("Content Security Policy" in line for line in seen.console)


def test_the_keyboard_moves_the_cursor_and_zooms(page: str, browse: Browse) -> None:
    seen = browse(
        page,
        """
        time.focus();
        const told = { focused: document.activeElement === time, ring: ring(time) };
        const nobody = mark("203.0.113.101 owner", "nobody");
        told.before = bounds(nobody);
        told.ticks = ticks();
        press("Home"); told.home = now();
        press("End"); told.end = now();
        press("Home");
        for (let n = 0; n < 5; n++) press("ArrowRight");
        told.five = now();
        press("ArrowLeft"); told.four = now();
        press("ArrowRight", { shiftKey: true }); told.further = now();
        press("Home");
        for (let n = 0; n < 4; n++) press("ArrowRight", { shiftKey: true });
        told.at = now();
        told.readout = document.querySelector(".readout").textContent;
        told.spoken = time.getAttribute("aria-valuetext");
        told.cursor = document.querySelector(".cursor").getAttribute("visibility");
        for (let n = 0; n < 3; n++) press("+");
        told.zoomed = bounds(nobody);
        told.fine = ticks();
        told.plot = document.querySelector("g.plot").getAttribute("transform");
        told.away = mark("203.0.113.101 owner", "node-0").getAttribute("visibility");
        press("-"); told.less = bounds(nobody);
        press("0"); told.after = bounds(nobody); told.all = ticks();
        press("Escape"); told.gone = document.querySelector(".cursor").getAttribute("visibility");
        return told;
        """,
    )
    told = seen.told
    assert seen.console == []
    assert told["focused"] is True
    assert "solid" in told["ring"]
    assert (told["home"], told["end"]) == (0, 60)
    assert (told["five"], told["four"], told["further"]) == (1.5, 1.2, 4.2)
    assert told["at"] == 12
    assert "nobody, 10.000\N{EN DASH}14.900 s" in told["readout"]
    assert "node.power-off lb-1" in told["spoken"]
    assert "requests per second" in told["spoken"]
    assert told["cursor"] == "visible"
    assert told["zoomed"] == pytest.approx([168, 1020 * 4.4 / 7.5], abs=0.1)  # from 10.5 s to 18 s
    assert told["less"][1] == pytest.approx(4 * told["before"][1], rel=0.01)
    assert told["fine"][::2] == [f"{second} s" for second in range(11, 19)]
    assert told["plot"].startswith("matrix(8 ")
    assert told["away"] == "hidden"
    assert told["after"] == pytest.approx(told["before"], abs=0.05)
    assert told["all"] == told["ticks"]
    assert told["gone"] == "hidden"


def test_a_time_in_the_log_leads_to_its_place_and_buttons_do_what_keys_do(page: str, browse: Browse) -> None:
    seen = browse(
        page,
        """
        const cell = [...document.querySelectorAll("button.at")].find(each => each.textContent === "13.050");
        cell.click();
        const told = { at: now(), focused: document.activeElement === time };
        for (let n = 0; n < 20; n++) document.querySelector('[data-key="+"]').click();
        told.deep = ticks();
        told.kept = mark("lb-1 power", "off").getAttribute("visibility");
        document.querySelector('[data-key="0"]').click();
        told.all = ticks().length;
        return told;
        """,
    )
    assert seen.told["at"] == 13.05
    assert seen.told["focused"] is True
    assert "13.050 s" in seen.told["deep"]
    assert seen.told["kept"] == "visible"
    assert seen.told["all"] == 2 * 13


def test_a_narrow_window_scrolls_the_drawing_and_not_the_page(page: str, browse: Browse) -> None:
    seen = browse(
        page,
        "return [document.documentElement.scrollWidth - innerWidth, time.scrollWidth - time.clientWidth, innerWidth]",
        width=500,
    )
    overflow, scrolls, width = seen.told
    assert width <= 520
    assert overflow <= 0
    assert scrolls > 0


def test_a_run_without_a_time_line_is_silent_too(browse: Browse) -> None:
    seen = browse(render(History([]), [], "Nothing", "It holds.", {}))
    assert (seen.console, seen.loaded) == ([], [])
    assert "Nobody can tell" in seen.document


def test_a_comparison_of_runs_renders_in_silence(browse: Browse, tmp_path: Path) -> None:
    before = folder(tmp_path / "before", 6, Site(), 1)
    now = folder(tmp_path / "now", 6, Site(slower_ms={"transfer": 20}), 2)
    sides = {release.BASELINE: release.read(before), release.CANDIDATE: release.read(now)}
    release.conclude(tmp_path, "Load", sides, "monkeywrench compare before now")
    seen = browse((tmp_path / release.PAGE).read_text())
    assert (seen.console, seen.loaded) == ([], [])
    assert "The candidate is worse." in seen.document


def test_it_prints(page: str, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(page)
    paper = tmp_path / "report.pdf"
    flags = [*FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--print-to-pdf={paper}", "--no-pdf-header-footer"]
    subprocess.run(
        [str(BROWSER), *flags, (tmp_path / "report.html").as_uri()], capture_output=True, timeout=180, check=True
    )
    written = paper.read_bytes()
    assert written.startswith(b"%PDF-")
    assert 1 < len(re.findall(rb"/Type\s*/Page\b", written)) < 30
