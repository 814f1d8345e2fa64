"use strict";
// Lets a reader pick a patch, a block, a head and a text. All numbers come from the page itself.
(() => {
  const $ = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const data = JSON.parse($("#data").textContent);
  const { rows, columns, heads, depth } = data;
  const patches = rows * columns;
  const state = { picked: data.patch, hovered: null, map: Number($("#block").value), head: -1,
    text: 0, against: 0, asked: 0 };

  // ------------------------------------------------------------------ numbers

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const floats = (text) => new Float32Array(bytes(text).buffer);
  const stream = floats(data.stream), added = floats(data.added);
  const terms = data.terms ? floats(data.terms) : null;
  const texts = all("input[name=text]").length;

  const percent = (part) =>
    part < 0.0995 ? `${Number((100 * part).toPrecision(3))} %` : `${(100 * part).toFixed(1)} %`;
  const number = (x) => (Math.abs(x) >= 100 ? x.toFixed(0) : String(Number(x.toPrecision(3))));
  const signed = (x) => (x < 0 ? "" : "+") + number(x);
  const place = (patch) =>
    `patch ${patch} (row ${Math.floor(patch / columns)}, column ${patch % columns})`;
  const upper = (text) => text[0].toUpperCase() + text.slice(1);
  const short = (text) => (text.length > 80 ? `${[...text].slice(0, 80).join("")}…` : text);
  const patch = () => state.hovered ?? state.picked;

  // The cell of a patch, where cells are squares of `side` patches, and the first patch of a cell.
  const across = (side) => Math.ceil(columns / side);
  const cellOf = (at, side) =>
    Math.floor(at / columns / side) * across(side) + Math.floor((at % columns) / side);
  const firstOf = (cell, side) =>
    Math.floor(cell / across(side)) * side * columns + (cell % across(side)) * side;
  const placeOf = (cell, side) => {
    const first = firstOf(cell, side);
    return side === 1 ? place(first) : `the ${side} × ${side} patches from row ` +
      `${Math.floor(first / columns)}, column ${first % columns}`;
  };
  const cells = (side) => across(side) * Math.ceil(rows / side);

  // ------------------------------------------------------------------ attention

  const queries = cells(data.queryCell), keys = cells(data.keyCell);
  const unpacked = new Map(); // of each block: its peaks and levels, once they are needed

  async function inflated(text) {
    const packed = new Blob([bytes(text)]).stream();
    const plain = packed.pipeThrough(new DecompressionStream("deflate"));
    const buffer = await new Response(plain).arrayBuffer();
    const peaks = new Float32Array(buffer, 0, heads * queries);
    return { peaks, levels: new Uint8Array(buffer, 4 * heads * queries) };
  }

  function block(index) {
    if (!unpacked.has(index)) unpacked.set(index, inflated(all("script.maps")[index].textContent));
    return unpacked.get(index);
  }

  // In one head, or in the mean of all (-1): what a patch reads from each key cell or, the other
  // way round, what each query cell reads from it.
  function weights({ peaks, levels }, patch, head) {
    const back = state.asked === 1;
    const own = cellOf(patch, back ? data.keyCell : data.queryCell);
    const found = new Float32Array(back ? queries : keys);
    const chosen = head < 0 ? [...Array(heads).keys()] : [head];
    for (const h of chosen) {
      for (let i = 0; i < found.length; i++) {
        const row = h * queries + (back ? i : own);
        const level = levels[row * keys + (back ? own : i)];
        found[i] += ((level / 255) ** 2 * peaks[row]) / chosen.length;
      }
    }
    return found;
  }

  // ------------------------------------------------------------------ drawing

  const mix = (stops, part) => {
    const at = part * (stops.length - 1), i = Math.min(Math.floor(at), stops.length - 2);
    return stops[i].map((low, band) => low + (stops[i + 1][band] - low) * (at - i));
  };
  const heat = Array.from({ length: 256 }, (_, i) => [...mix(data.heat, i / 255),
    data.veil[0] + ((data.veil[1] - data.veil[0]) * i) / 255]);
  const warm = (part) => heat[Math.round(255 * part)];
  const twoSided = (part) => [...data.diverging[part > 0 ? 1 : 0], data.veil[1] * Math.abs(part)];

  // A canvas in place of the picture that is there without this script.
  function canvasFor(image) {
    const canvas = document.createElement("canvas");
    canvas.width = columns;
    canvas.height = rows;
    canvas.className = "overlay";
    canvas.setAttribute("role", "img");
    image.replaceWith(canvas);
    return canvas;
  }

  function paint(canvas, valueAt, most, colour, label) {
    const context = canvas.getContext("2d");
    const image = context.createImageData(columns, rows);
    for (let at = 0; at < patches; at++) {
      image.data.set(colour(most > 0 ? valueAt(at) / most : 0), 4 * at);
    }
    context.putImageData(image, 0, 0);
    canvas.setAttribute("aria-label", label);
  }

  // The outlines: of the patch in small pictures, of its cell in the large ones.
  function markSmall() {
    const style = document.documentElement.style;
    style.setProperty("--row", Math.floor(patch() / columns));
    style.setProperty("--column", patch() % columns);
  }

  function mark(picture) {
    const side = Number(picture.dataset.cell);
    const first = firstOf(cellOf(patch(), side), side);
    const row = Math.floor(first / columns), column = first % columns;
    const style = picture.querySelector(".mark").style;
    style.left = `${(100 * column) / columns}%`;
    style.top = `${(100 * row) / rows}%`;
    style.width = `${(100 * Math.min(side, columns - column)) / columns}%`;
    style.height = `${(100 * Math.min(side, rows - row)) / rows}%`;
  }

  const say = (id, text) => { $(id).textContent = String(text).replace(/ %/g, "\u00a0%"); };
  const most = (values) => values.reduce((a, b) => Math.max(a, b), 0);

  // ------------------------------------------------------------------ the parts

  const attends = canvasFor($("#attends .overlay"));
  const tiles = all("#attention .tile").map((tile) => ({
    canvas: canvasFor(tile.querySelector(".overlay")), peak: tile.querySelector(".detail"),
  }));

  // The sides of the cells: of the outlined one, and of those that it is shown with.
  const sides = () =>
    state.asked === 1 ? [data.keyCell, data.queryCell] : [data.queryCell, data.keyCell];

  async function showAttention() {
    const index = state.map, unpackedBlock = await block(index);
    if (index !== state.map) return; // another block was chosen in the meantime
    const [ownSide, side] = sides();
    const own = cellOf(patch(), ownSide);
    tiles.forEach(({ canvas, peak }, i) => {
      const found = weights(unpackedBlock, patch(), i - 1), top = most(found);
      const valueAt = (at) => found[cellOf(at, side)];
      const name = i === 0 ? "mean of heads" : `head ${i - 1}`;
      const where = placeOf(found.indexOf(top), side);
      paint(canvas, valueAt, top, warm, `${name}: most, ${percent(top)}, at ${where}`);
      peak.textContent = `≤ ${percent(top)}`;
      if (i - 1 !== state.head) return;
      const asked = `${placeOf(own, ownSide)}, block ${data.blocks[index]}, ${name}`;
      paint(attends, valueAt, top, warm, `${asked}: most, ${percent(top)}, at ${where}`);
      say("#attention .most", percent(top));
      say("#attends-status", `${upper(asked)}: ${reads(found, ownSide === side ? own : null)}`);
    });
  }

  // The cells that are read most, and how many make up half; or those that read most.
  function reads(found, own) {
    const order = [...found.keys()].sort((a, b) => found[b] - found[a]);
    const [, side] = sides();
    const list = (join) => order.slice(0, 3).map((cell) =>
      `${percent(found[cell])} ${join} ${cell === own ? "itself" : placeOf(cell, side)}`).join(", ");
    if (state.asked === 1) return `provides ${list("of what is read by")}.`;
    const total = found.reduce((a, b) => a + b, 0);
    let sum = 0, half = 0;
    while (sum < total / 2) sum += found[order[half++]];
    const what = side > 1 ? "cells" : "patches";
    return `reads ${list("from")}. Half of all comes from ${half} of ${keys} ${what}.`;
  }

  const forText = terms ? canvasFor($("#for-text .overlay")) : null;

  function showText() {
    if (!terms) return;
    const start = (state.against * texts + state.text) * (patches + 1);
    const row = terms.subarray(start, start + patches), none = terms[start + patches];
    const top = row.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    const label = short(all(".text .label")[state.text].textContent);
    const logit = `the logit of “${label}”` +
      (texts > 1 && state.against === 0 ? " against the mean of the others" : "");
    const sum = row.reduce((a, b) => a + b, none);
    paint(forText, (at) => row[at], top, twoSided, `what each patch adds to ${logit}`);
    say("#texts .least", `-${number(top)}`);
    say("#texts .most", `+${number(top)}`);
    say("#for-text-status", `${upper(place(patch()))} adds ${signed(row[patch()])} to ${logit}; ` +
      `all patches ${signed(sum - none)}, the bias ${signed(none)}, together ${signed(sum)}.`);
  }

  const [low, high] = data.scale;
  const heightOf = (x) =>
    x > 0 ? Math.min(Math.max((high - Math.log10(x)) / (high - low), 0), 1) : 1;
  const line = (values, first) => "M" + values
    .map((x, i) => `${((1000 * (i + first)) / depth).toFixed(1)} ${(1000 * heightOf(x)).toFixed(0)}`)
    .join(" ");

  function showResidual() {
    const at = patch(), every = (values, from, count) =>
      Array.from({ length: count }, (_, i) => values[(from + i) * patches + at]);
    const lengths = every(stream, 0, depth + 1);
    const attention = every(added, 0, depth), mlp = every(added, depth, depth);
    $("#residual .plot .stream.one").setAttribute("d", line(lengths, 0));
    $("#residual .plot .attention.one").setAttribute("d", line(attention, 0.5));
    $("#residual .plot .mlp.one").setAttribute("d", line(mlp, 0.5));
    const b = data.blocks[state.map];
    $("#residual .here").setAttribute("x", `${(100 * b) / depth}%`);
    say("#residual-status", `${upper(place(at))} in block ${b}: length ${number(lengths[b])} before, ` +
      `attention adds ${number(attention[b])}, MLP adds ${number(mlp[b])}; ` +
      `length ${number(lengths[b + 1])} after.`);
  }

  // ------------------------------------------------------------------ picking

  const pictures = all(".picture[id]");
  const LEADS = [$("#attention > p").textContent,
    "The brighter a patch, the more of what it reads comes from the outlined one."];
  let waiting = false;

  function show() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      markSmall();
      const [own, side] = sides();
      $("#attends").dataset.cell = own;
      $("#attends").style.setProperty("--lines", side);
      say("#attention > p", LEADS[state.asked]);
      pictures.forEach(mark);
      showText();
      showResidual();
      showAttention().catch((error) =>
        say("#attends-status", `This browser cannot unpack the attention (${error.message}); ` +
          "one from 2024 or later can."));
    });
  }

  const choose = (change) => { Object.assign(state, change); show(); };

  function patchAt(picture, event) {
    const box = picture.getBoundingClientRect();
    const row = Math.floor((rows * (event.clientY - box.top)) / box.height);
    const column = Math.floor((columns * (event.clientX - box.left)) / box.width);
    const clamp = (i, count) => Math.min(Math.max(i, 0), count - 1);
    return clamp(row, rows) * columns + clamp(column, columns);
  }

  const moves = {
    ArrowLeft: (row, column) => [row, column - 1],
    ArrowRight: (row, column) => [row, column + 1],
    ArrowUp: (row, column) => [row - 1, column],
    ArrowDown: (row, column) => [row + 1, column],
    Home: (row) => [row, 0],
    End: (row) => [row, columns - 1],
    PageUp: (_, column) => [0, column],
    PageDown: (_, column) => [rows - 1, column],
  };

  function onKey(event) {
    const move = moves[event.key];
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const at = patch(), [row, column] = move(Math.floor(at / columns), at % columns);
    if (row < 0 || row >= rows || column < 0 || column >= columns) return;
    choose({ picked: row * columns + column, hovered: null });
  }

  for (const picture of pictures) {
    picture.tabIndex = 0;
    picture.setAttribute("role", "application");
    picture.setAttribute("aria-label", "the image; arrow keys pick a patch");
    picture.addEventListener("pointermove", (event) => {
      if (event.pointerType === "mouse") choose({ hovered: patchAt(picture, event) });
    });
    picture.addEventListener("pointerleave", () => choose({ hovered: null }));
    picture.addEventListener("click", (event) => choose({ picked: patchAt(picture, event) }));
    picture.addEventListener("keydown", onKey);
  }

  // Of the sections only the one in use is read aloud.
  document.addEventListener("focusin", (event) => {
    const here = event.target.closest("section");
    for (const status of all(".status")) {
      status.setAttribute("aria-live", status.closest("section") === here ? "polite" : "off");
    }
  });

  const slider = $("#block");
  slider.disabled = false;
  slider.addEventListener("input", () => {
    const number = data.blocks[slider.value];
    slider.setAttribute("aria-valuetext", `block ${number}`);
    say("#block-number", number);
    choose({ map: Number(slider.value) });
  });
  for (const name of ["head", "text", "against", "asked"]) {
    for (const input of all(`input[name=${name}]`)) {
      input.addEventListener("change", () => choose({ [name]: Number(input.value) }));
      if (input.checked) state[name] = Number(input.value);
    }
  }
  state.map = Number(slider.value); // browsers keep what was chosen when a page is loaded again
  all("[data-js]").forEach((element) => { element.hidden = false; });
  slider.dispatchEvent(new Event("input"));
})();
