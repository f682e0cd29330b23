// The live page: pictures and figures come over one WebSocket, commands go back. No library, nothing from elsewhere.
"use strict";

const $ = (id) => document.getElementById(id);
let socket = null, about = null, now = null, count = 0, wait = 500, blendHeld = 0, refused = "", refusedUntil = 0;

function connect() {
  socket = new WebSocket(`ws://${location.host}/live`);
  socket.binaryType = "blob";
  let seen = 0;
  socket.onopen = () => { wait = 500; };
  socket.onmessage = async ({ data }) => {
    if (typeof data === "string") return told(JSON.parse(data));
    const own = socket, number = ++seen;
    try {
      const image = await createImageBitmap(data);
      draw(image);
    } finally {
      if (own.readyState === WebSocket.OPEN) own.send(JSON.stringify({ seen: number }));
    }
  };
  socket.onclose = () => {
    say("The demo has stopped, or cannot be reached. Trying again.");
    setTimeout(connect, wait);
    wait = Math.min(2 * wait, 8000);
  };
}

function draw(image) {
  const canvas = $("picture");
  if (canvas.width !== image.width || canvas.height !== image.height) {
    canvas.width = image.width;
    canvas.height = image.height;
  }
  canvas.getContext("2d").drawImage(image, 0, 0);
  image.close();
  canvas.dataset.pictures = ++count;
}

function told(message) {
  if (message.refused) {
    refused = message.refused;
    refusedUntil = Date.now() + 4000;
  } else if (message.about) {
    about = message.about;
    build();
  } else if (about) {
    now = message.figures;
    now.watchers = message.watchers;
    refresh();
  }
}

function say(text) {
  const place = $("message");
  if (place.textContent !== text) place.textContent = text;
  place.hidden = !text;
}

function ask(command) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(command));
}

function button(parent, key, text, action, more = "") {
  const made = document.createElement("button");
  made.type = "button";
  made.dataset.key = key;
  made.append(text);
  if (more) made.append(document.createElement("em"));
  if (more) made.lastChild.textContent = more;
  made.append(document.createElement("small"));
  made.onclick = action;
  parent.append(made);
}

function build() {
  const names = Object.keys(about.tasks);
  for (const id of ["tasks", "beside", "blocks"]) $(id).replaceChildren();
  names.forEach((name) => button($("tasks"), name, name, () => ask({ tasks: [name] }), about.tasks[name].shows));
  button($("beside"), "", "nothing", () => ask({ tasks: [now.active[0]] }));
  names.forEach((name) => button($("beside"), name, name, () => ask({ tasks: [now.active[0], name] })));
  button($("blocks"), "-1", "off", () => ask({ experts: -1 }));
  about.blocks.forEach((block) => button($("blocks"), block, String(block), () => ask({ experts: block })));
  $("no-experts").hidden = !about.no_experts;
  $("no-experts").textContent = about.no_experts || "";
  for (const made of $("blocks").children) made.disabled = Boolean(about.no_experts);
}

const press = (id, chosen) => {
  for (const made of $(id).children) made.setAttribute("aria-pressed", chosen.includes(made.dataset.key));
};

function bytes(size) {
  if (size === null || size === undefined) return "not measured";
  for (const [unit, scale] of [["GB", 1e9], ["MB", 1e6]]) if (size >= scale) return `${(size / scale).toFixed(1)} ${unit}`;
  return size < 1000 ? `${size} B` : `${Math.round(size / 1000)} kB`;
}

const change = ({ map, drop }) =>
  [map ? `maps ${bytes(map)}` : "", drop ? `drops ${bytes(drop)}` : ""].filter(Boolean).join(", ") || "free";

const ms = (value) => (value === null || value === undefined ? "not yet" : `${value.toFixed(1).replace(/^-0\.0$/, "0.0")} ms`);

function refresh() {
  const source = now.source;
  $("what").textContent = `${about.bundle} on ${about.backend}, from ${source.name.split("/").pop() || source.name}`;
  const trained = about.trained_on ? `trained on ${about.trained_on}` : "";
  $("trained").textContent = trained.split(";")[0];
  $("trained").title = trained;
  say(now.error || (Date.now() < refusedUntil ? refused : source.text));
  press("tasks", now.active.slice(0, 1));
  press("beside", now.active.length > 1 ? now.active.slice(1) : [""]);
  press("blocks", [String(now.experts === null ? -1 : now.experts)]);
  for (const made of $("tasks").children) {
    const cost = now.costs[made.dataset.key];
    made.lastChild.textContent = cost ? change(cost) : "shown";
  }
  for (const made of $("beside").children) {
    const cost = now.beside[made.dataset.key];
    made.hidden = made.dataset.key === now.active[0];
    made.lastChild.textContent = cost ? change(cost) : now.active.includes(made.dataset.key) ? "shown" : "";
  }
  if (Date.now() > blendHeld) $("blend").value = 100 * now.blend;
  figures(source);
  keys();
}

function figures(source) {
  const last = now.switch, weights = now.weights;
  $("share").hidden = !weights.resident_bytes;
  $("share").firstChild.style.width = `${(100 * weights.resident_bytes) / weights.model_bytes}%`;
  const rows = {
    "weights in memory": `${bytes(weights.resident_bytes)} of ${bytes(weights.model_bytes)} (${weights.origin})`,
    "frames per second": now.fps.toFixed(1),
    "engine and colours, p50": ms(now.p50_ms),
    "engine and colours, p95": ms(now.p95_ms),
    "camera to picture, p50": ms(now.age_ms),
    "frames shown, dropped": `${now.frames}, ${source.dropped}`,
    "last switch": `${last.from.join(" + ") || "start"} to ${last.to.join(" + ")}, ${last.kind}`,
    "it mapped, dropped": last.bytes_mapped === null ? "own copies" : `${bytes(last.bytes_mapped)}, ${bytes(last.bytes_dropped)}`,
    "it took": ms(last.activate_ms),
    "its first frame, longer by": ms(last.first_frame_penalty_ms),
    "browsers": String(now.watchers),
  };
  const list = $("figures");
  if (list.children.length === 0) {
    for (const name of Object.keys(rows)) {
      const term = document.createElement("dt"), value = document.createElement("dd");
      term.textContent = name;
      value.dataset.name = name;
      list.append(term, value);
    }
  }
  for (const value of list.querySelectorAll("dd")) value.textContent = rows[value.dataset.name];
}

let drawn = "";
function keys() {
  const limits = (name) => (now.limits[name] || []).map((v) => v.toFixed(1));
  const state = JSON.stringify([now.active, now.experts, now.present, now.active.map(limits)]);
  if (state === drawn) return;
  drawn = state;
  const all = now.active.map((name) => key(name, about.tasks[name], limits(name)));
  if (now.experts !== null) now.active.forEach((name) => all.push(experts(name)));
  $("keys").replaceChildren(...all);
}

function key(name, task, limits) {
  const row = row_of(name);
  for (const i of now.present[name] || []) row.append(swatch(task.colours[i], task.classes[i]));
  if (task.unit && limits.length) row.append(scale(limits, task.unit));
  row.append(task.words.replaceAll(/ {2,}/g, ", "));
  return row;
}

function experts(name) {
  const row = row_of(`${name}, block ${now.experts}`);
  row.append("large: a patch's first choice, small: its next ones");
  for (const id of about.paths[name][about.blocks.indexOf(now.experts)]) row.append(swatch(about.expert_colours[id], `expert ${id}`));
  return row;
}

function row_of(title) {
  const row = document.createElement("div"), head = document.createElement("b");
  row.className = "key";
  head.textContent = title;
  row.append(head);
  return row;
}

function swatch([r, g, b], text) {
  const made = document.createElement("span"), patch = document.createElement("i");
  made.className = "swatch";
  patch.style.background = `rgb(${r} ${g} ${b})`;
  made.append(patch, text);
  return made;
}

function scale([low, high], unit) {
  const made = document.createElement("div"), bar = document.createElement("canvas"), ends = document.createElement("div");
  made.className = "scale";
  bar.width = 256;
  bar.height = 1;
  const context = bar.getContext("2d"), colours = context.createLinearGradient(0, 0, 256, 0);
  about.ramp.forEach(([r, g, b], i) => colours.addColorStop(i / (about.ramp.length - 1), `rgb(${r} ${g} ${b})`));
  context.fillStyle = colours;
  context.fillRect(0, 0, 256, 1);
  for (let i = 0; i <= 4; i++) {
    const mark = document.createElement("span");
    mark.textContent = `${(Number(low) + (i / 4) * (high - low)).toFixed(1)} ${unit}`;
    ends.append(mark);
  }
  made.append(bar, ends);
  return made;
}

$("blend").oninput = ({ target }) => {
  blendHeld = Date.now() + 500;
  ask({ blend: target.value / 100 });
};
document.onkeydown = ({ key, target }) => {
  if (!about || target.tagName === "INPUT") return;
  const name = Object.keys(about.tasks)[Number(key) - 1];
  if (name) ask({ tasks: [name] });
};
connect();
