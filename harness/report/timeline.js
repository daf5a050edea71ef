// The timeline's cursor and zoom. The page is complete without this script: the drawing has everything, with its times
// as attributes, and the script only moves it.
"use strict";

addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(each => { each.open = true; }));

(() => {
  const box = document.getElementById("time");
  if (!box) return;
  const svg = box.querySelector("svg.time");
  const [left, right, foot] = ["left", "right", "foot"].map(key => Number(svg.dataset[key]));
  const all = { from: Number(svg.dataset.start), to: Number(svg.dataset.end) };
  const height = svg.viewBox.baseVal.height;
  const LEAST_S = 0.02, LETTER = 6.4, STEPS = [1, 2, 5];
  const marks = [...svg.querySelectorAll("[data-from]")].map(rect => ({
    rect, from: Number(rect.dataset.from), to: Number(rect.dataset.to), least: Number(rect.dataset.least || 1.5),
    words: rect.dataset.text, text: rect.nextElementSibling?.matches("text.on") ? rect.nextElementSibling : null,
    shade: rect.classList.contains("shade"), title: rect.querySelector("title")?.textContent ?? "",
  }));
  const lanes = [...svg.querySelectorAll("g.lane")].map(group => ({
    name: group.dataset.name.trim(), marks: marks.filter(mark => mark.rect.parentNode === group),
  }));
  const plots = [...svg.querySelectorAll("g.plot")].map(group => ({
    group, name: group.dataset.name, unit: group.dataset.unit, values: new Map(JSON.parse(group.dataset.values)),
  }));
  const ticks = svg.querySelector("g.ticks"), line = svg.querySelector(".cursor"), drag = svg.querySelector(".drag");
  const readout = document.querySelector(".readout"), tools = document.querySelector(".tools");
  let view = { ...all }, at = null, dragged = null;

  const x = time => left + (time - view.from) / (view.to - view.from) * (right - left);
  const time = place => view.from + (place - left) / (right - left) * (view.to - view.from);
  const within = (value, least, most) => Math.min(Math.max(value, least), most);
  const make = (name, attributes) => {
    const made = document.createElementNS(svg.namespaceURI, name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    return made;
  };

  function drawMark(mark) {
    const start = within(x(mark.from), left, right), end = within(x(mark.to), left, right);
    const shown = mark.to >= view.from && mark.from <= view.to;
    const width = Math.min(Math.max(end - start, mark.shade ? 0 : mark.least), right - start + 2);
    mark.rect.setAttribute("x", start);
    mark.rect.setAttribute("width", width);
    mark.rect.setAttribute("visibility", shown ? "visible" : "hidden");
    if (!mark.words) return;
    const fits = shown && mark.words.length * LETTER + 8 <= width;
    if (fits && !mark.text) {
      const css = mark.rect.classList, y = Number(mark.rect.getAttribute("y")), tall = Number(mark.rect.getAttribute("height"));
      mark.text = make("text", { class: `on on-${css[0]} on-${css[css.length - 1]}`, y: y + tall / 2 + 4, "text-anchor": "middle", "pointer-events": "none" });
      mark.text.textContent = mark.words;
      mark.rect.after(mark.text);
    }
    mark.text?.setAttribute("x", start + width / 2);
    mark.text?.setAttribute("visibility", fits ? "visible" : "hidden");
  }

  function tickEvery() {
    for (let power = 0.001; ; power *= 10)
      for (const step of STEPS) if ((view.to - view.from) / (step * power) <= 14) return step * power;
  }

  function drawTicks() {
    const every = tickEvery(), digits = Math.max(0, -Math.floor(Math.log10(every) + 1e-9));
    ticks.replaceChildren();
    for (let n = Math.ceil(view.from / every - 1e-9); n * every <= view.to + 1e-9; n++) {
      const place = x(n * every), label = `${(n * every).toFixed(digits)} s`;
      ticks.append(make("line", { class: "grid", x1: place, x2: place, y1: 20, y2: foot }));
      for (const y of plots.length ? [13, height - 8] : [13]) {
        const text = make("text", { class: "soft small", x: place, y, "text-anchor": "middle" });
        text.textContent = label;
        ticks.append(text);
      }
    }
  }

  function show(from, to) {
    const length = within(to - from, Math.min(LEAST_S, all.to - all.from), all.to - all.from);
    const start = within(from, all.from, all.to - length);
    view = { from: start, to: start + length };
    marks.forEach(drawMark);
    drawTicks();
    const scale = (all.to - all.from) / length;
    const move = left - left * scale - (view.from - all.from) / length * (right - left);
    plots.forEach(plot => plot.group.setAttribute("transform", `matrix(${scale} 0 0 1 ${move} 0)`));
    drawCursor();
  }

  function seen() {
    const there = lane => lane.marks.filter(mark => mark.from <= at && at <= Math.max(mark.to, mark.from + 0.001)).at(-1);
    const states = lanes.map(lane => [lane.name, there(lane)?.title.replace(/: ([\d.]+) s to ([\d.]+) s \(.*\)$/, ", $1\u2013$2 s")]);
    const second = Math.floor(at);
    const values = plots.map(plot => [plot.name, plot.values.has(second) ? `${plot.values.get(second)} ${plot.unit}` : undefined]);
    return [["time", `${at.toFixed(3)} s`], ...states, ...values].filter(([, text]) => text !== undefined);
  }

  function drawCursor() {
    const shown = at !== null && at >= view.from && at <= view.to;
    line.setAttribute("visibility", shown ? "visible" : "hidden");
    readout.hidden = at === null;
    if (at === null) return;
    line.setAttribute("x1", x(at));
    line.setAttribute("x2", x(at));
    const rows = seen();
    readout.replaceChildren(...rows.map(([name, text]) => {
      const row = document.createElement("div");
      for (const [tag, words] of [["dt", name], ["dd", text]]) row.appendChild(document.createElement(tag)).textContent = words;
      return row;
    }));
    readout.style.minHeight = `${readout.offsetHeight}px`;  // keep the content below from jumping at every move
    box.setAttribute("aria-valuenow", at.toFixed(3));
    box.setAttribute("aria-valuetext", rows.map(([name, text]) => `${name}: ${text}`).join("; "));
  }

  function moveTo(moment) {
    at = within(moment, all.from, all.to);
    const length = view.to - view.from;
    if (at < view.from) show(at, at + length);
    else if (at > view.to) show(at - length, at);
    else drawCursor();
  }

  function zoom(factor, around) {
    const length = (view.to - view.from) / factor;
    const share = (around - view.from) / (view.to - view.from);
    show(around - share * length, around + (1 - share) * length);
  }

  function press(key, further) {
    const here = at ?? (view.from + view.to) / 2, step = (view.to - view.from) / (further ? 20 : 200);
    const seenHere = within(here, view.from, view.to);
    const moves = {
      ArrowLeft: () => moveTo(here - step), ArrowRight: () => moveTo(here + step),
      Home: () => moveTo(all.from), End: () => moveTo(all.to),
      "+": () => zoom(2, seenHere), "=": () => zoom(2, seenHere), "-": () => zoom(0.5, seenHere),
      "0": () => show(all.from, all.to), Escape: () => { at = null; drawCursor(); },
    };
    moves[key]?.();
    return key in moves;
  }

  const pointed = event => {
    const bounds = svg.getBoundingClientRect();
    return time(within((event.clientX - bounds.left) / bounds.width * svg.viewBox.baseVal.width, left, right));
  };

  box.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (press(event.key, event.shiftKey)) event.preventDefault();
  });
  svg.addEventListener("pointermove", event => {
    moveTo(pointed(event));
    if (!dragged) return;
    const [from, to] = [Math.min(dragged.from, at), Math.max(dragged.from, at)];
    drag.setAttribute("x", x(from));
    drag.setAttribute("width", x(to) - x(from));
    drag.setAttribute("visibility", "visible");
  });
  svg.addEventListener("pointerdown", event => {
    if (event.pointerType !== "mouse" || event.button !== 0) return;
    dragged = { from: pointed(event), x: event.clientX };
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointerup", event => {
    if (dragged && Math.abs(event.clientX - dragged.x) > 5) show(Math.min(dragged.from, at), Math.max(dragged.from, at));
    dragged = null;
    drag.setAttribute("visibility", "hidden");
  });
  svg.addEventListener("pointercancel", () => { dragged = null; drag.setAttribute("visibility", "hidden"); });
  svg.addEventListener("dblclick", () => show(all.from, all.to));
  svg.addEventListener("wheel", event => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.25 : 0.8, pointed(event));
  }, { passive: false });
  tools.addEventListener("click", event => { if (event.target.dataset.key) press(event.target.dataset.key, false); });

  // each time in a table leads to its place on the timeline
  document.querySelectorAll("td.time").forEach(cell => {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", className: "at", textContent: cell.textContent, title: "Show on the timeline" });
    button.addEventListener("click", () => { moveTo(Number(cell.textContent)); box.scrollIntoView({ block: "center" }); box.focus(); });
    cell.replaceChildren(button);
  });

  const slider = { tabindex: 0, role: "slider", "aria-label": "Timeline of the run, in seconds", "aria-valuemin": all.from, "aria-valuemax": all.to, "aria-valuenow": all.from };
  for (const key in slider) box.setAttribute(key, slider[key]);
  box.classList.add("live");
  tools.hidden = false;
})();
