"use strict";
const { results, options } = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const cards = results.map((_, index) => byId(`r${index}`));
const texts = cards.map((card) => card.textContent.toLowerCase());
let picked = [];

// Values: of an option (its name begins with --), of a number to sort by, or the name.
function valueOf(index, key) {
  const result = results[index];
  if (key.startsWith("--")) return result.options[key.slice(2)];
  return key === "name" ? result.name : result.order[key];
}

function compareValues(one, other) {
  const missing = (value) => value === undefined || value === null;
  if (missing(one) || missing(other)) return missing(one) - missing(other);
  const difference = Number(one) - Number(other);
  return Number.isNaN(difference) ? String(one).localeCompare(String(other), undefined, { numeric: true }) : difference;
}

function element(name, text, parent) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

// A word of the filter: a piece of what the card says, or name=value of an option that differs, as shift=5.
function matches(index, word) {
  const own = results[index].options;
  const [, name, value] = word.match(/^(?:--)?(\w+)=(.+)$/) ?? [];
  return name && Object.hasOwn(own, name) ? own[name].toLowerCase() === value : texts[index].includes(word);
}

function arrange() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const sort = byId("sort").value, group = byId("group").value, sign = byId("descending").checked ? -1 : 1;
  const left = results.map((_, index) => index).filter((index) => words.every((word) => matches(index, word)));
  left.sort((one, other) => sign * compareValues(valueOf(one, sort), valueOf(other, sort)));
  const groups = new Map();
  for (const index of left) {
    const value = group ? valueOf(index, group) : "";
    if (!groups.has(value)) groups.set(value, []);
    groups.get(value).push(cards[index]);
  }
  const page = new DocumentFragment();
  for (const [value, members] of [...groups].sort((one, other) => compareValues(one[0], other[0]))) {
    const section = element("section", undefined, page);
    if (group) element("h2", `${group} ${value === undefined ? "not set" : value} (${members.length})`, section);
    const grid = element("div", undefined, section);
    grid.className = "cards";
    grid.append(...members);
  }
  byId("results").replaceChildren(page);
  const all = results.length, unit = all === 1 ? "result" : "results";
  byId("count").textContent = left.length === all ? `${all} ${unit}` : `${left.length} of ${all} ${unit}`;
}

function pick(index, on) {
  picked = picked.filter((other) => other !== index);
  if (on) picked = [...picked, index].slice(-2);
  cards.forEach((card, other) => {
    const chosen = picked.includes(other);
    card.classList.toggle("on", chosen);
    card.querySelector(".pick").checked = chosen;
  });
  byId("bar").hidden = picked.length === 0;
  byId("compare").disabled = picked.length < 2;
  const names = picked.map((other) => results[other].name);
  byId("picked").textContent = names.length === 1 ? `${names[0]}: select another to compare` : names.join(" and ");
}

function openDialog() {
  const both = byId("both");
  both.replaceChildren();
  for (const index of picked) {
    const figure = element("figure", undefined, both);
    const media = cards[index].querySelector("video, img, .none").cloneNode(true);
    media.removeAttribute("controls");
    media.removeAttribute("loop");
    if (media.tagName === "VIDEO") media.preload = "auto";
    figure.append(media);
    element("figcaption", results[index].name, figure);
  }
  const head = element("tr");
  element("th", "option", head);
  picked.forEach((index) => { element("th", results[index].name, head).scope = "col"; });
  byId("names").replaceChildren(head);
  const rows = options.map((name) => [name, ...picked.map((index) => results[index].options[name])]);
  byId("differences").replaceChildren(...rows.filter(([, one, other]) => one !== other).map(([name, ...values]) => {
    const row = element("tr");
    element("th", `--${name}`, row).scope = "row";
    values.forEach((value) => element("td", value === undefined ? "not set" : value, row));
    return row;
  }));
  if (!byId("differences").children.length) element("td", "none", element("tr", undefined, byId("differences")));
  byId("play").hidden = videos().length === 0;
  showMoment();
  videos().forEach((video) => {
    video.addEventListener("timeupdate", follow);
    video.addEventListener("loadedmetadata", showMoment);
    video.addEventListener("ended", () => { if (videos().every((other) => other.ended)) seek(0).forEach((other) => other.play()); });
  });
  byId("toggle").textContent = "Play";
  byId("dialog").showModal();
}

const videos = () => [...byId("both").querySelectorAll("video")];
const longest = () => videos().reduce((one, other) => ((other.duration || 0) > (one.duration || 0) ? other : one), videos()[0]);

// Both show the same moment; the shorter one waits at its end.
function seek(seconds) {
  videos().forEach((video) => { video.currentTime = Math.min(Math.max(seconds, 0), video.duration || 0); });
  showMoment();
  return videos();
}

function follow() {
  const first = longest();
  if (!first) return;
  for (const video of videos()) {
    const moment = Math.min(first.currentTime, video.duration || 0);
    if (video !== first && !first.paused && Math.abs(video.currentTime - moment) > 0.08) video.currentTime = moment;
  }
  showMoment();
}

function showMoment() {
  const first = longest();
  if (!first) return;
  byId("position").max = first.duration || 1;
  byId("position").value = first.currentTime;
  byId("moment").textContent = `${first.currentTime.toFixed(2)} s`;
}

function toggle() {
  const paused = longest().paused;
  byId("toggle").textContent = paused ? "Pause" : "Play";
  videos().forEach((video) => (paused ? video.play() : video.pause()));
}

function step(frames) {
  videos().forEach((video) => video.pause());
  byId("toggle").textContent = "Play";
  const fps = Math.max(...picked.map((index) => results[index].fps));
  seek((Math.round(longest().currentTime * fps) + frames + 0.01) / fps);
}

// Controls darken the picture, so with a mouse they are there only where it is, or the keyboard's focus.
if (matchMedia("(hover: hover)").matches) {
  document.querySelectorAll(".card video").forEach((video) => {
    video.controls = false;
    video.tabIndex = 0;
    for (const come of ["pointerenter", "focus"]) video.addEventListener(come, () => { video.controls = true; });
    for (const go of ["pointerleave", "blur"]) video.addEventListener(go, () => { video.controls = !video.paused; });
  });
}
byId("controls").addEventListener("submit", (event) => event.preventDefault());
byId("controls").addEventListener("input", arrange);
cards.forEach((card, index) => card.querySelector(".pick").addEventListener("change", (event) => pick(index, event.target.checked)));
byId("clear").addEventListener("click", () => [...picked].forEach((index) => pick(index, false)));
byId("compare").addEventListener("click", openDialog);
byId("toggle").addEventListener("click", toggle);
byId("back").addEventListener("click", () => step(-1));
byId("forward").addEventListener("click", () => step(1));
byId("position").addEventListener("input", (event) => seek(Number(event.target.value)));
byId("close").addEventListener("click", () => byId("dialog").close());
byId("dialog").addEventListener("close", () => { byId("both").replaceChildren(); });
