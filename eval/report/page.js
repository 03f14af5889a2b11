"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const darkQuery = matchMedia("(prefers-color-scheme: dark)");
  const state = { hidden: new Set(), quality: data.qualities[0], sort: { column: "item", up: true }, split: 50 };
  const codecs = new Map(data.codecs.map((c) => [c.name, c]));
  const shown = () => data.codecs.filter((c) => !state.hidden.has(c.name));
  const colour = (name) => codecs.get(name)[darkQuery.matches ? "dark" : "light"];
  const faded = (name, alpha) => colour(name) + Math.round(alpha * 255).toString(16).padStart(2, "0");
  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const title = (q) => q.label + (q.unit ? `, ${q.unit}` : "") + (q.lower ? " (lower is better)" : "");
  const withUnit = (value, q) => value.toFixed(q.digits) + (q.unit ? ` ${q.unit}` : "");
  const count = (n) => Math.round(n).toLocaleString("en-GB");

  function element(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else node.setAttribute(key, value);
    }
    node.append(...children);
    return node;
  }

  function fill(select, options, chosen) {
    select.replaceChildren(...options.map(([value, text, disabled]) => {
      const option = element("option", { value }, text);
      option.disabled = Boolean(disabled);
      return option;
    }));
    if (chosen !== undefined) select.value = chosen;
  }

  // ---- codecs: one row of buttons that is legend and switch for the whole page

  const SYMBOLS = {
    circle: "M15 3a4 4 0 1 0 .01 0z", square: "M11 3h8v8h-8z", diamond: "M15 2l5 5-5 5-5-5z", "triangle-up": "M15 2l5 9H10z", "triangle-down": "M15 12l5-9H10z",
    cross: "M13.5 2.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z", x: "M11.5 2l3.5 3.5L18.5 2 20 3.500 16.500 7 20 10.500 18.500 12 15 8.500 11.500 12 10 10.500 13.500 7 10 3.500z",
    star: "M15 1.500l1.600 3.900 4.200.3-3.200 2.700 1 4.100-3.600-2.200-3.600 2.200 1-4.100-3.200-2.700 4.200-.3z",
  };

  function legendMark(codec) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 30 14");
    svg.setAttribute("aria-hidden", "true");
    const line = document.createElementNS(svg.namespaceURI, "path");
    line.setAttribute("d", "M1 7h28");
    line.setAttribute("stroke", colour(codec.name));
    line.setAttribute("stroke-width", codec.own ? 3.5 : 2);
    if (codec.dash) line.setAttribute("stroke-dasharray", "5 3");
    const mark = document.createElementNS(svg.namespaceURI, "path");
    mark.setAttribute("d", SYMBOLS[codec.symbol]);
    mark.setAttribute("fill", colour(codec.name));
    svg.append(line, mark);
    return svg;
  }

  function drawChips() {
    $("chips").replaceChildren(...data.codecs.map((codec) => element("button", {
      type: "button", class: codec.own ? "chip own" : "chip", "data-codec": codec.name, "aria-pressed": String(!state.hidden.has(codec.name)),
      onclick: (event) => {
        if (!state.hidden.delete(codec.name)) state.hidden.add(codec.name);
        event.currentTarget.setAttribute("aria-pressed", String(!state.hidden.has(codec.name)));
        drawAll();
      },
    }, legendMark(codec), codec.name)));
  }

  // ---- charts

  const narrowQuery = matchMedia("(max-width: 760px)");
  const narrow = () => narrowQuery.matches;
  const config = { displaylogo: false, showSendToCloud: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

  function layout(x, y, extra = {}) {
    const axis = { gridcolor: ink("--line"), linecolor: ink("--line"), zeroline: false, ticks: "outside", tickcolor: ink("--line"), automargin: true, title: { standoff: 10 } };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest", uirevision: extra.key,
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
      margin: { l: narrow() ? 48 : 62, r: 14, t: extra.title ? 40 : 12, b: 48 },
      font: { family: getComputedStyle(document.body).fontFamily, size: 14, color: ink("--ink") },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: ink("--quiet"), activecolor: ink("--ink"), orientation: "h" },
      hoverlabel: { align: "left", bgcolor: ink("--raised"), bordercolor: ink("--line"), font: { color: ink("--ink"), size: 14 } },
      ...(extra.title ? { title: { text: extra.title, font: { size: 16 }, x: 0, xref: "paper", xanchor: "left", y: 0.97 } } : {}),
      xaxis: { ...axis, ...x, title: { ...axis.title, text: x.text } }, yaxis: { ...axis, ...y, title: { ...axis.title, text: y.text } },
      ...extra.more,
    };
  }

  /** A logarithmic axis with labels that fit the spread of its values: 1 2 5 over decades, finer within one. */
  function logAxis(values) {
    const spread = Math.max(...values) / Math.min(...values);
    const steps = spread > 12 || !(spread > 1.05) ? [1, 2, 5] : spread > 3 ? [1, 1.5, 2, 3, 4, 5, 7] : [1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9];
    const ticks = [];
    for (let decade = -4; decade <= 4; decade += 1) for (const step of steps) ticks.push(Number((step * 10 ** decade).toPrecision(2)));
    return { type: "log", tickmode: "array", tickvals: ticks, ticktext: ticks.map(String) };
  }

  function rateAxis() {
    const text = "bits per pixel";
    return $("axis").value === "log" ? { text, ...logAxis(shown().flatMap((c) => data.curves[c.name].map((p) => p.bpp))) } : { text, type: "linear", rangemode: "tozero" };
  }

  function line(codec, points, values, hover) {
    return {
      name: codec.name, x: points.map((p) => p.bpp), y: values, text: hover, hovertemplate: "%{text}<extra></extra>", mode: "lines+markers",
      line: { color: colour(codec.name), width: codec.own ? 3.5 : 1.8, dash: codec.dash ? "dash" : "solid" },
      marker: { color: colour(codec.name), symbol: codec.symbol, size: (codec.own ? 9 : 7) + (codec.symbol.startsWith("triangle") || codec.symbol === "star" ? 2.5 : 0) },
    };
  }

  const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  const hoverHead = (codec, p) => `<b>${escaped(codec.name)}</b><br>${escaped(p.setting)}<br>${p.bpp.toFixed(3)} bpp`;

  function drawRd() {
    const q = state.quality;
    const traces = shown().map((codec) => {
      const points = data.curves[codec.name].filter((p) => p.q[q.key] !== null);
      return line(codec, points, points.map((p) => p.q[q.key]), points.map((p) => `${hoverHead(codec, p)}<br>${q.label} ${withUnit(p.q[q.key], q)}`));
    }).reverse(); // own codecs usually come last in a bench: keep what is drawn thicker from hiding the others
    Plotly.react("plot-rd", traces, layout(rateAxis(), { text: title(q) }, { key: `${q.key} ${$("axis").value}` }), config);
  }

  function drawSpeed() {
    for (const kind of ["encode", "decode"]) {
      const traces = shown().map((codec) => {
        const points = data.curves[codec.name].filter((p) => p[kind]);
        return line(codec, points, points.map((p) => p[kind]), points.map((p) => `${hoverHead(codec, p)}<br>${p[kind].toPrecision(3)} megapixels/s`));
      });
      Plotly.react(`plot-${kind}`, traces, layout(rateAxis(), { text: "megapixels a second", ...logAxis(traces.flatMap((t) => t.y)) }, { title: kind === "encode" ? "Encode" : "Decode", key: $("axis").value }), config);
    }
  }

  const nearest = (points, rate, of) => points.reduce((best, p) => (Math.abs(Math.log(of(p) / rate)) < Math.abs(Math.log(of(best) / rate)) ? p : best));
  const rate = () => Math.max(0.001, Number($("rate").value) || 0.5);

  function drawSplit() {
    const parts = [];
    for (const codec of shown().toReversed()) {
      const measured = data.curves[codec.name].filter((p) => p.encode_entropy !== null || p.decode_entropy !== null);
      if (!measured.length) continue;
      const point = nearest(measured, rate(), (p) => p.bpp);
      for (const kind of ["decode", "encode"]) {
        if (point[`${kind}_entropy`] === null || !point[kind]) continue;
        const whole = 1 / point[kind];
        const entropy = whole * point[`${kind}_entropy`];
        parts.push({ label: `${codec.name}<br>${kind}`, codec, whole, entropy, setting: point.setting });
      }
    }
    $("split").hidden = parts.length === 0;
    if (!parts.length) return;
    $("plot-split").style.height = `${80 + 48 * parts.length}px`;
    const bar = (name, value, paint, pattern) => ({
      type: "bar", orientation: "h", name, y: parts.map((p) => p.label), x: parts.map(value), hovertemplate: "%{text}<extra></extra>", textposition: "none",
      text: parts.map((p) => `<b>${escaped(p.codec.name)}</b>, ${escaped(p.setting)}<br>${name}: ${value(p).toPrecision(3)} s a megapixel (${(100 * value(p) / p.whole).toFixed(0)} %)`),
      marker: { color: parts.map(paint), line: { width: 0 }, pattern },
    });
    Plotly.react("plot-split", [
      bar("transform and the rest", (p) => p.whole - p.entropy, (p) => colour(p.codec.name)),
      bar("entropy coding", (p) => p.entropy, (p) => faded(p.codec.name, 0.4)),
    ], layout({ text: "s a megapixel", rangemode: "tozero" }, { text: "" }, { more: { barmode: "stack", bargap: 0.3, dragmode: false } }), { ...config, displayModeBar: false });
    $("split-note").textContent = `Full colour: transform and everything else; light: entropy coding. Each codec at its setting nearest to ${rate()} bpp.`;
  }

  // ---- BD matrix

  function sentence(test, anchor, cell) {
    const q = state.quality;
    if (!cell) return "";
    if (cell.why) return cell.why;
    const range = `${cell.low.toFixed(q.digits)} to ${withUnit(cell.high, q)}`;
    return `${test} needs ${Math.abs(cell.value).toFixed(2)} % ${cell.value < 0 ? "less" : "more"} rate than ${anchor} at equal ${q.label}, over ${range} (${(100 * cell.share).toFixed(0)} % of what both span).`;
  }

  function drawMatrix() {
    const table = data.bd[state.quality.key][$("method").value];
    const anchors = data.anchors.filter((a) => !state.hidden.has(a));
    const usual = `A row's codec against the column's at equal ${state.quality.label}: negative is fewer bytes. Point at a cell for the range it was taken over.`;
    const say = (text) => { $("bd-detail").textContent = text || usual; };
    const key = (name) => { const k = element("span", { class: "key" }); k.style.background = colour(name); return k; };
    const head = element("tr", {}, element("th", {}, "against"), ...anchors.map((a, i) => element("th", { scope: "col", class: i === 0 ? "anchor" : "" }, a)));
    const body = shown().map((codec) => element("tr", { class: codec.own ? "own" : "" },
      element("th", { scope: "row" }, key(codec.name), codec.name),
      ...anchors.map((anchor) => {
        const cell = table[codec.name]?.[anchor];
        if (!cell) return element("td", { class: "none" }, "");
        const text = cell.why ? (cell.why.includes("no overlap") ? "no overlap" : "no figure") : `${cell.value < 0 ? "\u2212" : "+"}${Math.abs(cell.value).toFixed(1)}`;
        const detail = sentence(codec.name, anchor, cell);
        const td = element("td", { class: cell.why ? "refused" : "", title: detail, tabindex: 0, "data-test": codec.name, "data-anchor": anchor,
          onmouseenter: () => say(detail), onfocus: () => say(detail), onmouseleave: () => say(), onblur: () => say() }, text);
        if (!cell.why) {
          const strength = Math.min(1, Math.abs(Math.log(1 + cell.value / 100)) / Math.log(2));
          td.style.background = `rgba(var(--${cell.value < 0 ? "less" : "more"}), ${(0.06 + 0.34 * strength).toFixed(3)})`;
        }
        return td;
      })));
    $("matrix").replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
    say();
  }

  // ---- table of items

  function atRate(points, index, target, mode) {
    const usable = (points || []).filter((p) => p[3][index] !== null);
    if (!usable.length) return null;
    if (mode === "nearest") {
      const p = nearest(usable, target, (u) => u[0]);
      return { value: p[3][index], bytes: p[1], setting: p[2], bpp: p[0] };
    }
    for (let i = 1; i < usable.length; i += 1) {
      const [a, b] = [usable[i - 1], usable[i]];
      if (a[0] <= target && target <= b[0]) {
        const share = b[0] > a[0] ? Math.log(target / a[0]) / Math.log(b[0] / a[0]) : 0;
        return { value: a[3][index] + share * (b[3][index] - a[3][index]) };
      }
    }
    return null;
  }

  function drawTable() {
    const [q, target, mode, columns] = [state.quality, rate(), $("mode").value, shown()];
    const index = data.qualities.indexOf(q);
    const rows = data.items.map((entry) => ({
      item: entry.item, bytes: target * entry.shape[0] * entry.shape[1] / 8,
      cells: new Map(columns.map((c) => [c.name, atRate(entry.points[c.name], index, target, mode)])),
    }));
    const by = (row) => (state.sort.column === "item" ? row.item : state.sort.column === "bytes" ? row.bytes : row.cells.get(state.sort.column)?.value ?? null);
    rows.sort((a, b) => {
      const [x, y] = [by(a), by(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return (x < y ? -1 : x > y ? 1 : 0) * (state.sort.up ? 1 : -1);
    });
    const header = (column, text) => element("th", { scope: "col", "data-column": column, "aria-sort": state.sort.column === column ? (state.sort.up ? "ascending" : "descending") : "none" },
      element("button", { type: "button", class: "sort", onclick: () => { state.sort = { column, up: state.sort.column === column ? !state.sort.up : column === "item" }; drawTable(); } }, text));
    const number = (cell, best) => {
      if (!cell) return element("td", { class: "none", title: "outside what was measured" }, "\u2013");
      const td = element("td", { class: best ? "best" : "" }, cell.value.toFixed(q.digits));
      if (cell.setting) td.append(element("small", {}, `${count(cell.bytes)} bytes`), element("small", {}, cell.setting));
      return td;
    };
    const line = (row) => {
      const values = columns.map((c) => row.cells.get(c.name)?.value).filter((v) => v !== undefined);
      const best = q.lower ? Math.min(...values) : Math.max(...values);
      return element("tr", {}, element("td", {}, row.item), ...(mode === "nearest" ? [] : [element("td", {}, count(row.bytes))]),
        ...columns.map((c) => number(row.cells.get(c.name), values.length > 1 && row.cells.get(c.name)?.value === best)));
    };
    const head = element("tr", {}, header("item", "item"), ...(mode === "nearest" ? [] : [header("bytes", "bytes")]), ...columns.map((c) => header(c.name, c.name)));
    $("table").replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows.map(line)));
    $("table-note").textContent = mode === "nearest"
      ? `${title(q)} of each codec's measured setting nearest to ${target} bpp, with its real bytes: rates differ a little between columns.`
      : `${title(q)}, linear in log rate between the two measured settings around ${target} bpp; \u2013 where the codec was not measured on both sides of it. Bytes: what that rate allows. Bold: best of the row.`;
  }

  // ---- slider

  const picture = () => data.pictures[Number($("picture").value)];

  function setSplit(percent) {
    state.split = Math.min(100, Math.max(0, percent));
    $("image-left").style.clipPath = `inset(0 ${(100 - state.split).toFixed(3)}% 0 0)`;
    $("handle").style.left = `${state.split}%`;
    $("handle").setAttribute("aria-valuenow", String(Math.round(state.split)));
  }

  function drawSides() {
    for (const which of ["left", "right"]) {
      const side = picture().sides.find((s) => s.name === $(which).value);
      $(`image-${which}`).src = side ? side.source : "";
      $(`image-${which}`).alt = side ? `${picture().item}, ${side.name}` : "";
      $(`caption-${which}`).replaceChildren(...(side ? [element("b", {}, side.name), side.caption] : []));
    }
    setSplit(state.split);
  }

  function sizeFrame() {
    const [p, zoom, frame] = [picture(), $("zoom").value, $("frame")];
    frame.classList.toggle("sharp", zoom !== "fit" && Number(zoom) > 1);
    frame.style.aspectRatio = `${p.width} / ${p.height}`;
    frame.style.width = zoom === "fit" ? `min(100%, ${(80 * p.width / p.height).toFixed(1)}vh)` : `${p.width * Number(zoom) / devicePixelRatio}px`;
  }

  function drawPicture() {
    const p = picture();
    const there = p.sides.filter((s) => s.source);
    const keep = (id, otherwise) => (there.some((s) => s.name === $(id).value) ? $(id).value : otherwise);
    const options = p.sides.map((s) => [s.name, s.source ? s.name : `${s.name} (missing)`, !s.source]);
    const own = there.find((s) => codecs.get(s.name)?.own) || there.at(-1);
    const anchor = there.find((s) => s.name === data.anchors[0] && s !== own) || there[0];
    const [left, right] = [keep("left", own?.name), keep("right", anchor?.name)];
    fill($("left"), options, left);
    fill($("right"), options, right);
    $("viewer").hidden = there.length === 0;
    $("picture-note").textContent = `${p.item}: ${p.note}.`;
    $("picture-missing").replaceChildren(...p.sides.filter((s) => !s.source).map((s) => element("li", {}, `no picture of ${s.name}: ${s.missing}`)));
    if (there.length) { sizeFrame(); drawSides(); }
  }

  function startSlider() {
    $("pictures").hidden = data.pictures.length === 0;
    if (!data.pictures.length) return;
    fill($("picture"), data.pictures.map((p, i) => [i, p.item]));
    const [frame, handle] = [$("frame"), $("handle")];
    const follow = (event) => { const box = frame.getBoundingClientRect(); setSplit(100 * (event.clientX - box.left) / box.width); };
    frame.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || (event.pointerType === "touch" && event.target !== handle)) return; // a finger beside the handle scrolls
      frame.setPointerCapture(event.pointerId);
      follow(event);
      handle.focus({ preventScroll: true });
      event.preventDefault();
    });
    frame.addEventListener("pointermove", (event) => { if (frame.hasPointerCapture(event.pointerId)) follow(event); });
    handle.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 10 : 1;
      const to = { ArrowLeft: state.split - step, ArrowDown: state.split - step, ArrowRight: state.split + step, ArrowUp: state.split + step, PageDown: state.split - 10, PageUp: state.split + 10, Home: 0, End: 100 }[event.key];
      if (to === undefined) return;
      setSplit(to);
      event.preventDefault();
    });
    $("picture").addEventListener("change", drawPicture);
    for (const id of ["left", "right"]) $(id).addEventListener("change", drawSides);
    $("zoom").addEventListener("change", sizeFrame);
    drawPicture();
  }

  // ---- all together

  function drawAll() { drawRd(); drawMatrix(); drawSpeed(); drawSplit(); drawTable(); }

  fill($("quality"), data.qualities.map((q) => [q.key, q.label + (q.unit && q.label !== "PSNR" ? ` in ${q.unit}` : "")]), state.quality.key);
  $("quality").addEventListener("change", () => { state.quality = data.qualities.find((q) => q.key === $("quality").value); drawRd(); drawMatrix(); drawTable(); });
  $("axis").addEventListener("change", () => { drawRd(); drawSpeed(); });
  $("method").addEventListener("change", drawMatrix);
  $("rate").addEventListener("input", () => { drawTable(); drawSplit(); });
  $("mode").addEventListener("change", drawTable);
  darkQuery.addEventListener("change", () => { drawChips(); drawAll(); });
  narrowQuery.addEventListener("change", drawAll);
  drawChips();
  startSlider();
  drawAll();
  document.documentElement.dataset.ready = "yes";
})();
