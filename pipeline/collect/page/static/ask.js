// One question at a time: shown, answered by key or touch, saved before the next one comes.

import { announce, say, send, show, showConversation } from "./shared.js";

const byId = (id) => document.getElementById(id);
const buttons = [...document.querySelectorAll("[data-choice]")];
const chips = [...document.querySelectorAll(".chip")];
const KEYS = { 1: "first", 2: "second", t: "tie", b: "both_bad", s: "skip", u: "undo" };
const STRENGTHS = { q: 0, w: 1, e: 2 };

let tab;
let view = null;
let busy = true;
let seconds = 0; // that the question was seen
let since = null; // when it came into sight, null while it is out of sight

// ---- which tab this is: kept over a reload, but not by a copy of the tab ----------------------------------

async function whichTab() {
  const fresh = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("");
  let mine = sessionStorage.getItem("tab") ?? fresh();
  const channel = new BroadcastChannel(location.pathname);
  const taken = new Promise((resolve) => {
    channel.onmessage = ({ data }) => data.taken === mine && resolve(true);
    setTimeout(() => resolve(false), 200); // a tab out of sight answers late
  });
  channel.postMessage({ asks: mine });
  if (await taken) mine = fresh();
  channel.onmessage = ({ data }) => data.asks === mine && channel.postMessage({ taken: mine });
  sessionStorage.setItem("tab", mine);
  return mine;
}

// ---- time in sight -----------------------------------------------------------------------------------------

function pauseClock() {
  if (since !== null) seconds += (performance.now() - since) / 1000;
  since = null;
}

function runClock() {
  if (document.visibilityState === "visible" && since === null) since = performance.now();
}

document.addEventListener("visibilitychange", () => (document.visibilityState === "visible" ? runClock() : pauseClock()));

// ---- showing -----------------------------------------------------------------------------------------------

function draw(turn) {
  const { question, progress } = turn;
  view = question?.view ?? null;
  byId("question").hidden = question === null;
  byId("done").hidden = question !== null;
  byId("verdicts").hidden = question === null && progress.done === 0;
  for (const button of buttons) button.hidden = question === null && button.dataset.choice !== "undo";
  if (question !== null) {
    showConversation(byId("conversation"), question.prompt);
    document.querySelectorAll(".answer .said").forEach((place, index) => show(place, question.answers[index]));
  }
  for (const chip of chips) chip.setAttribute("aria-pressed", "false");
  drawProgress(progress);
  scrollTo(0, 0);
  byId("title").focus({ preventScroll: true });
  seconds = 0;
  since = null;
  runClock();
}

function drawProgress({ done, left, pace }) {
  byId("progress").textContent = say("progress", { done, left });
  const told = { seconds: Math.max(1, Math.round(pace ?? 0)), minutes: Math.max(1, Math.round(((pace ?? 0) * left) / 60)) };
  byId("pace").textContent = pace === null || left === 0 ? "" : `· ${say("pace", told)}`;
  byId("meter").max = Math.max(1, done + left);
  byId("meter").value = done;
}

// ---- asking and answering ----------------------------------------------------------------------------------

function setBusy(state) {
  busy = state;
  for (const button of buttons) button.setAttribute("aria-disabled", String(state));
}

async function exchange(path, body, told) {
  setBusy(true);
  pauseClock();
  let turn = await send(path, { tab, ...body() });
  let sentence = turn && told(turn);
  if (turn === null) {
    turn = await send("next", { tab });
    sentence = say("stale");
  }
  draw(turn);
  announce(turn.question === null ? `${sentence} ${say("done")}` : `${sentence} ${byId("progress").textContent}.`);
  setBusy(false);
}

const pressed = (name) => chips.filter((chip) => name in chip.dataset && chip.getAttribute("aria-pressed") === "true");

function choose(choice) {
  if (busy) return;
  if (choice === "undo") {
    exchange("undo", () => ({}), ({ undone }) => say(undone ? "undone" : "nothing_to_undo"));
    return;
  }
  if (view === null) return;
  const strength = pressed("strength").map((chip) => Number(chip.dataset.strength))[0] ?? null;
  const reasons = pressed("reason").map((chip) => chip.dataset.reason);
  exchange("answer", () => ({ view, choice, seconds, strength, reasons }), () => say("saved"));
}

function toggle(chip) {
  const on = chip.getAttribute("aria-pressed") !== "true";
  if ("strength" in chip.dataset) for (const other of pressed("strength")) other.setAttribute("aria-pressed", "false");
  chip.setAttribute("aria-pressed", String(on));
}

for (const button of buttons) button.addEventListener("click", () => choose(button.dataset.choice));
for (const chip of chips) chip.addEventListener("click", () => toggle(chip));
byId("again").addEventListener("click", () => busy || exchange("next", () => ({}), () => ""));

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const key = event.key.toLowerCase();
  if (key in KEYS) choose(KEYS[key]);
  else if (key in STRENGTHS && view !== null) toggle(chips[STRENGTHS[key]]);
  else if (key === "g" && byId("guidelines")) byId("guidelines").open = !byId("guidelines").open;
  else return;
  event.preventDefault();
});

// ---- the guidelines stand open until they were closed once ---------------------------------------------------

const guidelines = byId("guidelines");
if (guidelines) {
  guidelines.open = localStorage.getItem("guidelines") !== "read";
  guidelines.addEventListener("toggle", () => guidelines.open || localStorage.setItem("guidelines", "read"));
}

tab = await whichTab();
draw(await send("next", { tab }));
setBusy(false);
