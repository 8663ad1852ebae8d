"use strict";
// Everything shown is put in as text, never as markup. Details of a video are parsed when it is opened.
const PAGE = 50;
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);

function make(tag, text, attributes = {}, children = []) {
  const node = document.createElement(tag);
  if (text !== null && text !== undefined) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  const h = Math.floor(tenths / 36000), m = Math.floor(tenths / 600) % 60, s = (tenths % 600) / 10;
  return (h ? h + ":" : "") + String(m).padStart(2, "0") + ":" + s.toFixed(1).padStart(4, "0");
}

function grid(columns, rows) {
  const cell = (tag, value, column) => make(tag, value, { class: column.kind });
  const head = make("thead", null, {}, [make("tr", null, {}, columns.map((c) => cell("th", c.title, c)))]);
  const body = make("tbody", null, {}, rows.map((row) =>
    make("tr", null, {}, columns.map((c, i) => cell("td", row[i], c)))));
  return make("table", null, {}, [head, body]);
}

function fill(id, found, none) {
  at(id).append(found.rows.length ? grid(found.columns, found.rows) : make("p", none, { class: "soft" }));
}

// Videos: one row each, filtered and sorted in the page, 50 at a time.
const columns = [
  { key: "picture", title: "", kind: "picture" },
  { key: "name", title: "Name", kind: "text" },
  { key: "status", title: "Status", kind: "" },
  { key: "duration_s", title: "Length", kind: "number" },
  { key: "n_segments", title: "Segments", kind: "number wide" },
  { key: "n_answers", title: "Answers", kind: "number wide" },
  { key: "said", title: "Said of it, or why not", kind: "text wide" },
];
const state = { sort: "name", down: false, page: 0, shown: [] };
data.videos.forEach((video, i) => {
  video.number = i;
  video.words = video.search.toLowerCase();
});

function refilter() {
  const words = at("search").value.toLowerCase().split(/\s+/).filter(Boolean), status = at("status").value;
  state.shown = data.videos.filter((v) => (!status || v.status === status) && words.every((w) => v.words.includes(w)));
  const { sort, down } = state;
  const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
  state.shown.sort((a, b) => (a[sort] === null) - (b[sort] === null) || (down ? -1 : 1) * order(a[sort], b[sort]));
  state.page = 0;
  draw();
}

function draw() {
  const pages = Math.max(1, Math.ceil(state.shown.length / PAGE));
  const rows = state.shown.slice(state.page * PAGE, (state.page + 1) * PAGE).map(videoRow);
  document.querySelector("#videos tbody").replaceChildren(...rows);
  at("found").textContent = `${state.shown.length} of ${data.videos.length}` +
    (data.n_left_out ? ` (${data.n_left_out} more are in the index, not in this page)` : "");
  at("page").textContent = `Page ${state.page + 1} of ${pages}`;
  at("previous").disabled = state.page === 0;
  at("next").disabled = state.page >= pages - 1;
  document.querySelectorAll("#videos th").forEach((th) => th.setAttribute(
    "aria-sort", th.dataset.key === state.sort ? (state.down ? "descending" : "ascending") : "none"));
}

function detailOf(number) {
  const source = at(`video-${number}`);
  return source && JSON.parse(source.textContent);
}

function thumbnail(jpeg, alt) {
  return make("img", null, { src: `data:image/jpeg;base64,${jpeg}`, alt, loading: "lazy" });
}

function videoRow(video) {
  return make("tr", null, {}, columns.map(({ key, kind }) => {
    if (key === "picture") {
      const pictured = detailOf(video.number).segments.filter((s) => s.jpeg);
      const middle = pictured[Math.floor(pictured.length / 2)];
      return make("td", null, { class: kind }, middle ? [thumbnail(middle.jpeg, "")] : []);
    }
    if (key === "name") {
      const button = make("button", video.name, { type: "button", class: "name" });
      button.addEventListener("click", () => { location.hash = `video=${video.number}`; });
      return make("td", null, { class: kind }, [button]);
    }
    const value = key === "duration_s" ? (video.duration_s === null ? "" : clock(video.duration_s)) : video[key];
    return make("td", value, { class: key === "status" ? video.status : kind });
  }));
}

// One video: its storyboard, what was said of it, what was answered and from where.
function open(number) {
  const video = data.videos[number], detail = detailOf(number);
  if (!video || !detail) return;
  at("detail-name").textContent = video.name;
  const strip = make("div", null, { class: "strip", tabindex: "0", "aria-label": "Storyboard" });
  const line = make("div", null, { class: "timeline", "aria-hidden": "true" });
  const figures = detail.segments.map((segment) => {
    const alt = `${clock(segment.start_s)} to ${clock(segment.end_s)}`;
    const picture = segment.jpeg ? thumbnail(segment.jpeg, alt) : make("span", "no picture");
    const figure = make("figure", null, {}, [picture, make("figcaption", alt)]);
    strip.append(figure);
    return figure;
  });
  const end = detail.bars.length ? detail.bars[detail.bars.length - 1][1] : 1;
  const bars = detail.bars.map(([from, to]) => {
    const bar = document.createElement("i");
    bar.style.left = `${(100 * from) / end}%`;
    bar.style.width = `${(100 * (to - from)) / end}%`;
    line.append(bar);
    return bar;
  });
  const light = (from, to) => {
    const over = (a, b) => a < to && from < b;
    figures.forEach((f, i) => f.classList.toggle("lit", over(detail.segments[i].start_s, detail.segments[i].end_s)));
    bars.forEach((b, i) => b.classList.toggle("lit", over(...detail.bars[i])));
    const first = strip.querySelector(".lit");
    if (first) first.scrollIntoView({ block: "nearest", inline: "center" });
  };
  const facts = make("dl", null, {}, detail.facts.flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
  const parts = [];
  if (detail.bars.length) parts.push(make("h3", "Storyboard"), line, strip);
  if (detail.n_segments > detail.segments.length)
    parts.push(make("p", `${detail.segments.length} of ${detail.n_segments} segments are pictured`, { class: "soft" }));
  if (detail.captions.length) parts.push(make("h3", "Captions"), grid(
    [{ title: "Time", kind: "time" }, { title: "Caption", kind: "text" }],
    detail.captions.map((c) => [`${clock(c.start_s)} – ${clock(c.end_s)}`, c.caption])));
  if (detail.answers.length) parts.push(make("h3", "Answers"), ...detail.answers.map((a) => answer(a, light)));
  at("detail-body").replaceChildren(...parts, make("h3", "Facts"), facts);
  if (!at("detail").open) at("detail").showModal();
}

function answer(found, light) {
  const evidence = found.evidence.map(([from, to, score]) => {
    const button = make("button", `${clock(from)} – ${clock(to)} (${score.toFixed(2)})`, { type: "button" });
    button.addEventListener("click", () => light(from, to));
    return button;
  });
  const place = found.scope === "clip" ? ` (${clock(found.start_s)} – ${clock(found.end_s)})` : "";
  return make("dl", null, {}, [
    make("dt", "Question"), make("dd", found.question + place),
    make("dt", "Answer"), make("dd", found.abstained ? "abstained: nothing relevant enough" : found.answer),
    make("dt", found.abstained ? "Nearest" : "Seen in"), make("dd", null, { class: "evidence" }, evidence),
  ]);
}

function histogram({ title, counts, low, high }) {
  const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg");
  const most = Math.max(1, ...counts), width = 100 / counts.length;
  svg.setAttribute("viewBox", "0 0 100 50");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "histogram");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${title}: ${counts.join(", ")}`);
  counts.forEach((count, i) => {
    const bar = document.createElementNS(space, "rect"), height = (48 * count) / most;
    const box = { x: i * width + 0.3, y: 50 - height, width: width - 0.6, height };
    for (const [name, value] of Object.entries(box)) bar.setAttribute(name, value);
    svg.append(bar);
  });
  const label = `${title}: ${low} to ${high}, highest bar ${most}`;
  return make("figure", null, {}, [svg, make("figcaption", label)]);
}

function follow() {
  const match = /^#video=(\d+)$/.exec(location.hash);
  if (match) open(Number(match[1]));
  else if (at("detail").open) at("detail").close();
}

at("title").textContent = data.title;
document.title = data.title;
at("summary").textContent = data.summary;
document.querySelector("#videos thead tr").append(...columns.map(({ key, title, kind }) => {
  if (!title) return make("td", null, { class: kind });
  const button = make("button", title, { type: "button" });
  button.addEventListener("click", () => {
    state.down = state.sort === key ? !state.down : false;
    state.sort = key;
    refilter();
  });
  return make("th", null, { class: kind, scope: "col", "data-key": key }, [button]);
}));
at("status").append(make("option", "all", { value: "" }), ...data.statuses.map((s) => make("option", s, { value: s })));
at("search").addEventListener("input", refilter);
at("status").addEventListener("change", refilter);
at("previous").addEventListener("click", () => { state.page -= 1; draw(); });
at("next").addEventListener("click", () => { state.page += 1; draw(); });
at("detail").addEventListener("close", () => { if (location.hash) location.hash = ""; });
document.addEventListener("keydown", (event) => {
  const step = { n: 1, p: -1 }[event.key];
  if (step && at("detail").open) {
    const next = state.shown[state.shown.findIndex((v) => `#video=${v.number}` === location.hash) + step];
    if (next) location.hash = `video=${next.number}`;
  }
  if (event.key === "/" && !/^(INPUT|SELECT)$/.test(document.activeElement.tagName)) {
    event.preventDefault();
    at("search").focus();
  }
});
window.addEventListener("hashchange", follow);
fill("pruning", data.pruning, "Nothing was captioned or answered yet.");
fill("failures", data.failures, "None.");
fill("runs", data.runs, "None.");
at("plots").append(...data.plots.map(histogram));
refilter();
follow();
document.body.dataset.ready = "yes";
