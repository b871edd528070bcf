// The pairs on which annotators differ, with what each said; the owner has the last word.

import { announce, element, say, send, show, showConversation } from "./shared.js";

const CHOICES = ["first", "tie", "both_bad", "second"];

function verdicts(dispute) {
  return element(
    "ul",
    { class: "verdicts" },
    ...dispute.verdicts.map(({ annotator, choice, reasons }) => {
      const why = reasons.length ? ` (${reasons.map((reason) => say(`reason.${reason}`)).join(", ")})` : "";
      return element("li", { dir: "auto" }, say("says", { annotator, verdict: say(choice) }) + why);
    }),
  );
}

function answers(dispute) {
  return element(
    "div",
    { class: "answers" },
    ...dispute.answers.map((words, index) => {
      const place = element("div", { class: "said", dir: "auto" });
      show(place, words);
      return element("article", { class: "answer" }, element("h3", {}, say("answer", { number: index + 1 })), place);
    }),
  );
}

function decide(dispute, choice) {
  return async () => {
    const told = await send("decide", { pair: dispute.pair, choice });
    draw(told ?? (await send("list", { tab: "settle" })));
    announce(choice === null ? say("undone") : say("saved"));
    document.getElementById(`pair-${dispute.pair}`)?.querySelector("button")?.focus({ preventScroll: true });
  };
}

function button(words, pressed, act) {
  const made = element("button", { type: "button", "aria-pressed": String(pressed) }, words);
  made.addEventListener("click", act);
  return made;
}

function card(dispute) {
  const conversation = element("div", { class: "conversation" });
  showConversation(conversation, dispute.prompt);
  const decisions = element("div", { class: "decisions", role: "group", "aria-label": say("verdict") });
  decisions.append(...CHOICES.map((choice) => button(say(choice), choice === dispute.decision, decide(dispute, choice))));
  if (dispute.decision) decisions.append(button(say("reopen"), false, decide(dispute, null)));
  const settled = dispute.decision ? [element("p", { class: "settled" }, say("settled_as", { verdict: say(dispute.decision) }))] : [];
  const attributes = { class: "dispute", id: `pair-${dispute.pair}` };
  return element("section", attributes, conversation, answers(dispute), verdicts(dispute), ...settled, decisions);
}

function draw({ disputes }) {
  const settled = disputes.filter(({ decision }) => decision).length;
  document.getElementById("none").hidden = disputes.length > 0;
  document.getElementById("progress").textContent = say("settle_count", { open: disputes.length - settled, settled });
  document.getElementById("disputes").replaceChildren(...disputes.map(card));
}

draw(await send("list", { tab: "settle" }));
