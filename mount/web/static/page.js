"use strict";

// Shows each event of the server. All text of files is set as text, never as HTML.

const $ = (id) => document.getElementById(id);
const PLOTTED = 300; // seconds
const names = { w: "waiting", s: "sending", a: "acknowledged", c: "changed", f: "failed" };

function size(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i++; }
  return (i === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)) + " " + units[i];
}

function span(seconds) {
  if (seconds < 60) return Math.round(seconds) + " s";
  if (seconds < 3600) return Math.round(seconds / 60) + " min";
  return (seconds / 3600).toFixed(1) + " h";
}

function element(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
}

function setText(e, text) { if (e.textContent !== text) e.textContent = text; }

// quote makes a word of a shell.
function quote(s) { return "'" + s.replaceAll("'", "'\\''") + "'"; }

// list keeps one item for each file in parent, in order, and calls fill with it. An item
// that stays is the same element, so that it keeps the focus.
function list(parent, files, fill) {
  const old = new Map([...parent.children].map((e) => [e.dataset.path, e]));
  files.forEach((f, i) => {
    let e = old.get(f.path);
    old.delete(f.path);
    if (!e) {
      e = element("li");
      e.dataset.path = f.path;
      e.tabIndex = 0;
    }
    fill(e, f);
    if (parent.children[i] !== e) parent.insertBefore(e, parent.children[i] || null);
  });
  for (const e of old.values()) e.remove();
}

// child returns the child of e with this class, and makes it where there is none.
function child(e, tag, className) {
  return e.querySelector(":scope > ." + className) || e.appendChild(element(tag, className));
}

function advice(f, mount) {
  const command = "uploadfs retry " + quote(mount + "/" + f.path);
  switch (f.state) {
    case "failed": return ["Correct the cause, then send it again:", command];
    case "interrupted": return ["Write the file again, or send it as it is:", command];
  }
  return ["", ""];
}

function fillFile(e, f, mount) {
  if (e.dataset.filled === JSON.stringify(f)) return;
  e.dataset.filled = JSON.stringify(f);
  e.className = f.state;
  setText(child(e, "div", "name"), f.path);
  const facts = [f.state, size(f.size_bytes)];
  if (f.parts_total) facts.push(f.parts_acknowledged + " of " + f.parts_total + " parts", size(f.sent_bytes) + " sent");
  if (f.rate) facts.push(size(f.rate) + "/s");
  if (f.eta) facts.push(span(f.eta) + " left");
  if (f.file_id) facts.push(f.file_id);
  if (f.next_attempt) facts.push("next attempt " + new Date(f.next_attempt).toLocaleTimeString());
  setText(child(e, "div", "facts"), facts.join(" · "));
  if (f.parts_total && f.state !== "completed") {
    const bar = child(e, "progress", "bar");
    bar.max = Math.max(f.size_bytes, 1);
    bar.value = f.sent_bytes;
    bar.setAttribute("aria-label", "bytes of " + f.path);
  } else {
    e.querySelector(":scope > .bar")?.remove();
  }
  if (f.parts) fillGrid(child(e, "div", "grid"), f.parts);
  else e.querySelector(":scope > .grid")?.remove();
  if (f.error) setText(child(e, "div", "error"), f.error);
  else e.querySelector(":scope > .error")?.remove();
  const [what, command] = advice(f, mount);
  if (what) {
    const a = child(e, "div", "advice");
    a.replaceChildren(what + " ", element("code", "", command));
  } else {
    e.querySelector(":scope > .advice")?.remove();
  }
}

function fillGrid(grid, parts) {
  grid.setAttribute("role", "img");
  const counts = {};
  for (const p of parts) counts[p] = (counts[p] || 0) + 1;
  grid.setAttribute("aria-label", "parts: " +
    Object.keys(names).filter((p) => counts[p]).map((p) => counts[p] + " " + names[p]).join(", "));
  while (grid.children.length > parts.length) grid.lastChild.remove();
  [...parts].forEach((p, i) => {
    const box = grid.children[i] || grid.appendChild(element("span"));
    if (box.className !== "part " + p) {
      box.className = "part " + p;
      box.title = "part " + i + ": " + names[p];
    }
  });
}

function fillTotals(v) {
  const n = v.counts || {};
  const waiting = ["writing", "uploading", "retrying", "held"].reduce((sum, s) => sum + (n[s] || 0), 0);
  const totals = [
    ["Now", size(rates.at(-1) || 0) + "/s"],
    ["Sent since the mount", size(v.sent_bytes)],
    ["Parts in flight", v.slots_in_use + " of " + v.slots],
    ["Files pending", String(waiting)],
    ["Files completed", String(n.completed || 0)],
    ["Files failed", String((n.failed || 0) + (n.interrupted || 0))],
    ["Disk used", size(v.disk_used_bytes)],
    ["Disk free", size(v.disk_free_bytes)],
  ];
  const dl = $("totals");
  totals.forEach(([name, value], i) => {
    const box = dl.children[i] || dl.appendChild(element("div"));
    if (!box.firstChild) box.append(element("dt"), element("dd"));
    setText(box.firstChild, name);
    setText(box.lastChild, value);
  });
}

let rates = [];

function fillPlot() {
  const most = Math.max(...rates, 1);
  const x = (i) => 600 - (rates.length - 1 - i) * (600 / (PLOTTED - 1));
  const y = (r) => 118 - 116 * r / most;
  const points = rates.map((r, i) => x(i).toFixed(1) + "," + y(r).toFixed(1));
  if (points.length) {
    $("plot-line").setAttribute("d", "M" + points.join("L"));
    $("plot-area").setAttribute("d", "M" + x(0).toFixed(1) + ",118L" + points.join("L") + "L600,118Z");
  }
  const mean = rates.reduce((sum, r) => sum + r, 0) / Math.max(rates.length, 1);
  setText($("plot-text"), "now " + size(rates.at(-1) || 0) + "/s, at most " + size(Math.max(...rates, 0)) + "/s, on average " + size(mean) + "/s");
}

let known = null; // failures that have been told, by path

// tell says to screen readers what has changed: a new failure, a completed file.
function tell(v, failures) {
  const now = new Set(failures.map((f) => "failed: " + f.path).concat((v.completed || []).map((f) => "completed: " + f.path + " as " + f.file_id)));
  if (known) {
    const news = [...now].filter((s) => !known.has(s)).slice(0, 3);
    if (news.length) $("news").textContent = news.join(", ");
  }
  known = now;
}

function show(v) {
  rates = rates.concat(v.rates || []).slice(-PLOTTED);
  document.title = "uploadfs " + v.mount_point;
  setText($("title"), v.mount_point);
  setText($("place"), "to " + v.endpoint + " · " + v.write_path);
  setText($("connection"), v.ending ? "unmounted, uploading what is pending" : "live");
  $("connection").className = "live";
  const notes = v.notes || [];
  $("notes").hidden = !notes.length;
  if ($("notes").dataset.filled !== JSON.stringify(notes)) {
    $("notes").dataset.filled = JSON.stringify(notes);
    $("notes").replaceChildren(...notes.map((n) => element("li", "", n)));
  }
  fillTotals(v);
  fillPlot();
  const files = v.files || [];
  const failures = files.filter((f) => f.state === "failed" || f.state === "interrupted");
  const flight = files.filter((f) => !failures.includes(f) && (f.parts || f.state === "retrying"));
  const waiting = files.filter((f) => !failures.includes(f) && !flight.includes(f));
  const fill = (e, f) => fillFile(e, f, v.mount_point);
  list($("failures"), failures, fill);
  list($("flight"), flight, fill);
  list($("waiting"), waiting, fill);
  list($("completed"), v.completed || [], fill);
  $("failures-section").hidden = !failures.length;
  $("flight-none").hidden = flight.length > 0;
  $("legend").hidden = !flight.length;
  $("waiting-section").hidden = !waiting.length;
  $("completed-section").hidden = !(v.completed || []).length;
  $("more").hidden = !v.more;
  setText($("more"), "… " + v.more + " more: see uploadfs status");
  tell(v, failures);
}

const events = new EventSource("events" + location.search);
events.onopen = () => { rates = []; };
events.onmessage = (e) => show(JSON.parse(e.data));
events.onerror = () => {
  setText($("connection"), "no connection to the mount: it may have been unmounted");
  $("connection").className = "lost";
  if (events.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
};
