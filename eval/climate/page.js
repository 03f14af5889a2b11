"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
const ink = dark ? "#e6e9ed" : "#1b1f24", line = dark ? "#343a42" : "#d9dde3";
const colours = dark ? ["#ff8a4c", "#5aaee8", "#2fcf9f", "#e79ccb", "#e8b54a", "#9bd8ff", "#b4b4b4", "#d6d24c", "#ffffff"]
  : ["#d55e00", "#0072b2", "#009e73", "#b8579a", "#b87f00", "#3a9bd9", "#6b6b6b", "#7a7a00", "#1b1f24"];
const config = { responsive: true, displayModeBar: false };
const one = (id) => document.getElementById(id);

function layout(title, more) {
  const axis = { gridcolor: line, zerolinecolor: line, automargin: true };
  return Object.assign({ title: { text: title, font: { size: 14 }, x: 0, xanchor: "left", xref: "paper" }, margin: { l: 44, r: 8, t: 34, b: 34 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: 12 } },
    Object.fromEntries(Object.entries(more).map(([k, v]) => [k, k.endsWith("axis") ? Object.assign({}, axis, v) : v])));
}

function heat(id, title, z, style) {
  const axes = { xaxis: { ticks: "", showgrid: false, showticklabels: false, constrain: "domain" },
    yaxis: { ticks: "", showgrid: false, showticklabels: false, autorange: "reversed", scaleanchor: "x", constrain: "domain" } };
  Plotly.react(id, [Object.assign({ type: "heatmap", z, colorbar: { thickness: 10, len: 0.9 } }, style)], layout(title, axes), config);
}

function range(map) {
  const bytes = Uint8Array.from(atob(map.bdata), (c) => c.charCodeAt(0));
  const values = new Float32Array(bytes.buffer).filter((v) => isFinite(v));
  return [values.reduce((a, b) => Math.min(a, b), Infinity), values.reduce((a, b) => Math.max(a, b), -Infinity)];
}

function maps() {
  const codec = data.codecs[one("codec").selectedIndex];
  const [zmin, zmax] = range(data.map);
  const style = { zmin, zmax, colorscale: "Viridis" };
  heat("original", `original${data.units ? `, ${data.units}` : ""}`, data.map, style);
  heat("decoded", `${codec.name}: ratio ${codec.ratio.toFixed(1)}`, codec.map, style);
  heat("error", "error over the bound", codec.error, { zmin: -1, zmax: 1, colorscale: "RdBu", zmid: 0 });
  const lines = [{ name: "original", y: data.power, colour: ink, dash: "solid" },
    ...data.codecs.map((c, i) => ({ name: c.name, y: c.power, colour: colours[i % 9], dash: "dot" }))];
  Plotly.react("spectrum", lines.map((l) => ({ name: l.name, x: data.wave, y: l.y, mode: "lines", line: { color: l.colour, dash: l.dash } })),
    layout("power spectrum, cycles a grid step", { xaxis: { type: "log" }, yaxis: { type: "log", exponentformat: "power" },
      legend: { orientation: "v", x: 0.02, y: 0.02, yanchor: "bottom" } }), config);
  one("maps-note").textContent = `${codec.name}: ${codec.bytes.toLocaleString("en")} bytes, RMSE ${codec.rmse.toPrecision(3)} ${data.units}, `
    + `${codec.beyond} points beyond the bound of ${data.bound.toPrecision(4)} ${data.units}.`
    + (data.step > 1 ? ` Maps show every ${data.step}th row and column; of the error the worst of each block.` : "");
}

function entries(bound) { return bound === "lossless" ? data.table.lossless.fields : data.table.bounded[bound].fields; }
function codecsOf(rows) {
  const names = [...new Set(rows.flatMap((e) => Object.keys(e.ratios)))];
  return names.sort((a, b) => (b === data.own) - (a === data.own));
}

function bars() {
  const rows = entries(one("bound").value), codecs = codecsOf(rows);
  one("plot-bytes").style.height = `${120 + rows.length * (codecs.length * 7 + 8)}px`;
  const traces = codecs.map((c, i) => ({ type: "bar", orientation: "h", name: c, y: rows.map((e) => e.item),
    x: rows.map((e) => (e.ratios[c] ? 32 / e.ratios[c] : null)), marker: { color: colours[i % 9] } }));
  Plotly.react("plot-bytes", traces, layout("bits a point (float32: 32)", { yaxis: { autorange: "reversed" }, xaxis: { rangemode: "tozero" }, barmode: "group",
    bargap: 0.3, legend: { orientation: "h", y: 1, yanchor: "bottom", traceorder: "normal" }, margin: { l: 44, r: 8, t: 64, b: 34 } }), config);
}

function numbers() {
  const bounds = [...data.table.bounds.map(String), "lossless"], table = one("table");
  const all = codecsOf(bounds.flatMap((b) => entries(b)));
  const cell = (row, kind, text, name) => { const c = document.createElement(kind); c.textContent = text; if (name) c.className = name; row.append(c); };
  const head = table.createTHead().insertRow();
  ["field", "bound", ...all].forEach((t) => cell(head, "th", t));
  const body = table.createTBody();
  for (const bound of bounds) for (const e of entries(bound)) {
    const row = body.insertRow(), best = Math.max(...Object.values(e.ratios));
    cell(row, "th", e.item);
    cell(row, "td", bound === "lossless" ? bound : `${bound} %`);
    for (const c of all) cell(row, "td", e.ratios[c] ? e.ratios[c].toFixed(2) + (e.exceedances[c] ? "*" : "") : "", e.ratios[c] === best ? "best" : "");
  }
}

one("lead").textContent = `${data.shape.join(" x ")} points; every codec keeps, or should keep, |error| <= ${data.bound.toPrecision(4)} ${data.units}.`;
for (const c of data.codecs) one("codec").append(new Option(c.name));
one("codec").onchange = maps;
maps();
if (data.table) {
  for (const b of [...data.table.bounds.map(String), "lossless"]) one("bound").append(new Option(b === "lossless" ? b : `${b} %`, b));
  one("bound").onchange = bars;
  one("bytes").hidden = one("numbers").hidden = false;
  bars();
  numbers();
}
document.documentElement.dataset.ready = "yes";
