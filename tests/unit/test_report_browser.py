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
from tests.support.program import DEADLINE_S
from tests.support.sites import Site, folder

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no browser: apt-get install chromium"),
]

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
    """The script's result, the console's messages, the resources that the page loaded, and the final document."""

    result: Any
    console: list[str]
    loaded: list[str]
    document: str


Browse = Callable[..., Seen]


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    def browse(page: str, script: str = "return null", width: int = 1280) -> Seen:
        report = tmp_path / "report.html"
        tell = (
            f"const result = (() => {{ {LOOK} {script} }})();\n"
            'const loaded = performance.getEntriesByType("resource").map(each => each.name);\n'
            'const out = document.createElement("output"); out.id = "result";\n'
            "out.textContent = JSON.stringify({ result, loaded }); document.body.append(out);"
        )
        report.write_text(page.replace("</body>", f"<script>{tell}</script></body>"))
        flags = [*FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},1000", "--dump-dom"]
        done = subprocess.run(
            [str(BROWSER), *flags, report.as_uri()], capture_output=True, text=True, timeout=DEADLINE_S, check=True
        )
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        found = re.search(r'<output id="result">(.*?)</output>', done.stdout, re.DOTALL)
        assert found, (done.stdout[-500:], console)
        result = json.loads(html.unescape(found[1]))
        return Seen(result["result"], console, result["loaded"], done.stdout)

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
    assert seen.result["h1"] == "The cluster held."
    assert seen.result["marks"] > 50
    assert seen.result["empty"] == []
    assert seen.result["height"] > 500
    assert seen.result["tools"] is True
    assert seen.result["overflow"] <= 0


def test_what_would_load_something_is_stopped_and_seen(page: str, browse: Browse) -> None:
    seen = browse(page.replace("</h1>", '</h1><img src="https://example.test/x.png">'))
    assert any("Content Security Policy" in line for line in seen.console)


def test_the_keyboard_moves_the_cursor_and_zooms(page: str, browse: Browse) -> None:
    seen = browse(
        page,
        """
        time.focus();
        const result = { focused: document.activeElement === time, ring: ring(time) };
        const unowned = mark("203.0.113.101 owner", "unowned");
        result.before = bounds(unowned);
        result.ticks = ticks();
        press("Home"); result.home = now();
        press("End"); result.end = now();
        press("Home");
        for (let n = 0; n < 5; n++) press("ArrowRight");
        result.five = now();
        press("ArrowLeft"); result.four = now();
        press("ArrowRight", { shiftKey: true }); result.further = now();
        press("Home");
        for (let n = 0; n < 4; n++) press("ArrowRight", { shiftKey: true });
        result.at = now();
        result.readout = document.querySelector(".readout").textContent;
        result.spoken = time.getAttribute("aria-valuetext");
        result.cursor = document.querySelector(".cursor").getAttribute("visibility");
        for (let n = 0; n < 3; n++) press("+");
        result.zoomed = bounds(unowned);
        result.fine = ticks();
        result.plot = document.querySelector("g.plot").getAttribute("transform");
        result.away = mark("203.0.113.101 owner", "node-0").getAttribute("visibility");
        press("-"); result.less = bounds(unowned);
        press("0"); result.after = bounds(unowned); result.all = ticks();
        press("Escape"); result.gone = document.querySelector(".cursor").getAttribute("visibility");
        return result;
        """,
    )
    result = seen.result
    assert seen.console == []
    assert result["focused"] is True
    assert "solid" in result["ring"]
    assert (result["home"], result["end"]) == (0, 60)
    assert (result["five"], result["four"], result["further"]) == (1.5, 1.2, 4.2)
    assert result["at"] == 12
    assert "no owner, 10.000\N{EN DASH}14.900 s" in result["readout"]
    assert "node.power-off lb-1" in result["spoken"]
    assert "requests per second" in result["spoken"]
    assert result["cursor"] == "visible"
    assert result["zoomed"] == pytest.approx([168, 1020 * 4.4 / 7.5], abs=0.1)  # from 10.5 s to 18 s
    assert result["less"][1] == pytest.approx(4 * result["before"][1], rel=0.01)
    assert result["fine"][::2] == [f"{second} s" for second in range(11, 19)]
    assert result["plot"].startswith("matrix(8 ")
    assert result["away"] == "hidden"
    assert result["after"] == pytest.approx(result["before"], abs=0.05)
    assert result["all"] == result["ticks"]
    assert result["gone"] == "hidden"


def test_a_time_in_the_log_leads_to_its_place_and_buttons_do_what_keys_do(page: str, browse: Browse) -> None:
    seen = browse(
        page,
        """
        const cell = [...document.querySelectorAll("button.at")].find(each => each.textContent === "13.050");
        cell.click();
        const result = { at: now(), focused: document.activeElement === time };
        for (let n = 0; n < 20; n++) document.querySelector('[data-key="+"]').click();
        result.deep = ticks();
        result.kept = mark("lb-1 power", "off").getAttribute("visibility");
        document.querySelector('[data-key="0"]').click();
        result.all = ticks().length;
        return result;
        """,
    )
    assert seen.result["at"] == 13.05
    assert seen.result["focused"] is True
    assert "13.050 s" in seen.result["deep"]
    assert seen.result["kept"] == "visible"
    assert seen.result["all"] == 2 * 13


def test_a_narrow_window_scrolls_the_drawing_and_not_the_page(page: str, browse: Browse) -> None:
    seen = browse(
        page,
        "return [document.documentElement.scrollWidth - innerWidth, time.scrollWidth - time.clientWidth, innerWidth]",
        width=500,
    )
    overflow, scrolls, width = seen.result
    assert width <= 520
    assert overflow <= 0
    assert scrolls > 0


def test_a_run_without_a_timeline_logs_nothing_either(browse: Browse) -> None:
    seen = browse(render(History([]), [], "Nothing", "It holds.", {}))
    assert (seen.console, seen.loaded) == ([], [])
    assert "does not show whether the cluster held" in seen.document


def test_a_comparison_of_runs_renders_without_console_messages(browse: Browse, tmp_path: Path) -> None:
    before = folder(tmp_path / "before", 6, Site(), 1)
    now = folder(tmp_path / "now", 6, Site(slower_ms={"transfer": 20}), 2)
    sides = {release.BASELINE: release.read(before), release.CANDIDATE: release.read(now)}
    release.write_comparison(tmp_path, "Load", sides, "monkeywrench compare before now")
    seen = browse((tmp_path / release.PAGE).read_text())
    assert (seen.console, seen.loaded) == ([], [])
    assert "The candidate is worse." in seen.document


def test_it_prints(page: str, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(page)
    paper = tmp_path / "report.pdf"
    flags = [*FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--print-to-pdf={paper}", "--no-pdf-header-footer"]
    subprocess.run(
        [str(BROWSER), *flags, (tmp_path / "report.html").as_uri()], capture_output=True, timeout=DEADLINE_S, check=True
    )
    written = paper.read_bytes()
    assert written.startswith(b"%PDF-")
    assert 1 < len(re.findall(rb"/Type\s*/Page\b", written)) < 30
