// Keeps the page as the server says that things are, and sends its forms without leaving it.

import { Timeline } from "./timeline.js";

const ROWS = 60;
const SIDES = ["guarded", "bare"];
const find = (selector, inside = document) => inside.querySelector(selector);
const rows = find("#rows");
const news = find("#news");
const dialog = find("#dialog");
const isCalm = matchMedia("(prefers-reduced-motion: reduce)");

const timelines = new Map(SIDES.map((side) => [side, new Timeline(find(`#${side} .chart`), show)]));
let offset = 0; // from this page's clock to the server's, in seconds
let isDrawing = false;
let isStoryOver = true;
let newest = 0; // number in the table
const awaited = new Map(); // the endings so far of what was sent by hand, by number

const now = () => performance.now() / 1000 + offset;

// --- what the server says

function connect() {
  const events = new EventSource("/events");
  events.addEventListener("message", ({ data }) => apply(JSON.parse(data)));
  events.addEventListener("error", () => {
    document.body.classList.add("is-lost");
    say("The demo does not answer any more.");
  });
}

function apply(message) {
  document.body.classList.remove("is-lost");
  if (message.whole) begin(message);
  for (const side of SIDES) count(side, message.sides[side], message.threads);
  for (const trip of message.trips) {
    timelines.get(trip.side).set(trip);
    if (!message.whole) follow(trip);
  }
  for (const [number, html] of message.rows) put(number, html);
  tell(message);
  document.body.classList.toggle("is-starting", !message.ready);
  draw();
}

function begin(message) {
  offset = message.now - performance.now() / 1000;
  awaited.clear();
  newest = 0;
  rows.replaceChildren();
  find("#none").hidden = message.rows.length > 0;
  for (const side of SIDES) {
    timelines.get(side).reset(message.threads, message.now);
    lay(find(`#${side}`), message.threads);
  }
}

function lay(side, threads) {
  const dots = Array.from({ length: threads }, () => document.createElement("i"));
  find(".dots", side).replaceChildren(...dots);
  const lanes = Array.from({ length: threads }, (_, lane) => {
    const item = document.createElement("li");
    item.textContent = lane + 1;
    return item;
  });
  find(".gutter", side).replaceChildren(...lanes, find(".gutter .queue", side));
}

function count(name, counts, threads) {
  const side = find(`#${name}`);
  for (const field of side.querySelectorAll("[data-count]")) {
    const value = String({ ...counts, threads }[field.dataset.count]);
    if (field.textContent !== value) field.textContent = value;
  }
  find(".dots", side).childNodes.forEach((dot, index) => dot.classList.toggle("is-busy", index < counts.busy));
  side.classList.toggle("is-stuck", counts.busy >= threads);
}

function put(number, html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  const row = template.content.firstElementChild;
  const old = document.getElementById(row.id);
  const hadFocus = old?.contains(document.activeElement);
  if (old) old.replaceWith(row);
  else if (number > newest) rows.prepend(row);
  else return; // it has left the table already
  newest = Math.max(newest, number);
  if (hadFocus) find("a", row)?.focus();
  if (rows.childElementCount > ROWS) rows.lastElementChild.remove();
  find("#none").hidden = true;
}

function tell(message) {
  const story = find("#story");
  story.hidden = !message.story;
  if (story.dataset.html !== message.story) {
    story.dataset.html = message.story;
    story.innerHTML = message.story;
  }
  if (message.over && !isStoryOver) say("The story is over. " + find(".verdict").textContent);
  isStoryOver = message.over || !message.story;
}

// Says how a request has ended that was sent by hand: a story would be too much to listen to.
function follow(trip) {
  if (!isStoryOver || trip.ending === null) return;
  const endings = awaited.get(trip.number) ?? {};
  endings[trip.side] = `${trip.ending.replace("-", " ")}${trip.status ? `, ${trip.status}` : ""}`;
  awaited.set(trip.number, endings);
  if (endings.guarded && endings.bare && !endings.isSaid) {
    endings.isSaid = true;
    say(`Request ${trip.number}, ${trip.kind}: ${endings.guarded} with hostline; ${endings.bare} without.`);
  }
}

function say(text) {
  news.textContent = text.replace(/\s+/g, " ").trim();
}

// --- drawing

function draw() {
  if (isCalm.matches) {
    frame();
  } else if (!isDrawing) {
    isDrawing = true;
    requestAnimationFrame(animate);
  }
}

function frame() {
  const instant = now();
  return SIDES.map((side) => timelines.get(side).draw(instant)).includes(true);
}

function animate() {
  isDrawing = frame();
  if (isDrawing) requestAnimationFrame(animate);
}

setInterval(() => isCalm.matches && frame(), 1000);

// --- what the user says

for (const form of document.querySelectorAll("form[method=post]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(form, event.submitter);
  });
}

async function send(form, button) {
  const isSlow = !("quiet" in form.dataset); // servers have to be started for it
  if (isSlow) say("The servers are being started.");
  const body = new URLSearchParams(new FormData(form, button));
  try {
    // A redirect back to the page is for browsers without scripts.
    const answer = await fetch(form.action, { method: "POST", body, redirect: "manual" });
    if (answer.type !== "opaqueredirect") say(await answer.text());
    else if (isSlow) say(form.action.endsWith("/story") ? "The story has begun." : "Both servers run with these settings.");
  } catch {
    say("The demo does not answer any more.");
  }
}

for (const slider of document.querySelectorAll("input[type=range]")) {
  const output = find(`output[for=${slider.id}]`);
  slider.addEventListener("input", () => {
    output.textContent = [slider.value, output.dataset.unit].filter(Boolean).join(" ");
  });
}

async function show(number) {
  const answer = await fetch(`/requests/${number}`);
  if (!answer.ok) return say(await answer.text());
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  find("#dialog-content").replaceChildren(find("article", page));
  if (!dialog.open) dialog.showModal();
}

rows.addEventListener("click", (event) => {
  const link = event.target.closest("a.stack");
  if (!link || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  show(link.getAttribute("href").split("/").pop());
});

dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close(); // beside it
});

connect();
