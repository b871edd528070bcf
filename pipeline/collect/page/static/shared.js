// What both pages need: sentences, requests that don't give up, and text that stays text.

const text = JSON.parse(document.getElementById("text").textContent);
const csrf = document.querySelector('meta[name="csrf"]').content;
const PATIENCE = 1500; // milliseconds between two attempts

// Signs that turn or hide what follows them; they are shown by their code instead of being obeyed.
const HIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069\ufeff\u{e0000}-\u{e007f}]/gu;

export function say(key, values = {}) {
  return text[key].replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

export function announce(sentence) {
  document.getElementById("said").textContent = sentence;
}

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Somebody's text, as text: nothing in it is markup, and nothing in it changes what stands around it.
export function show(place, words) {
  const parts = [];
  let end = 0;
  for (const found of words.matchAll(HIDDEN)) {
    const code = `U+${found[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
    parts.push(words.slice(end, found.index), element("span", { class: "sign", title: say("hidden_mark", { code }) }, code));
    end = found.index + found[0].length;
  }
  place.replaceChildren(...parts, words.slice(end));
}

export function showConversation(place, prompt) {
  place.replaceChildren(
    ...prompt.map(({ role, content }) => {
      const words = element("div", { class: "said", dir: "auto" });
      show(words, content);
      return element("div", { class: `turn ${role}` }, element("p", { class: "role" }, say(`role.${role}`)), words);
    }),
  );
}

function alarm(sentence) {
  const place = document.getElementById("alarm");
  place.textContent = sentence ?? "";
  place.hidden = sentence === null;
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// Sends until the server has it. Returns its reply, or null where the question isn't open any more.
export async function send(path, body) {
  let failed = false;
  for (;;) {
    const reply = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
      body: JSON.stringify(body),
    }).catch(() => null);
    if (reply?.ok) {
      const told = await reply.json().catch(() => null);
      if (told !== null) {
        alarm(null);
        if (failed) announce(say("back"));
        return told;
      }
    }
    if (reply?.status === 409) {
      alarm(null);
      return null;
    }
    if (reply && reply.status >= 400 && reply.status < 500) {
      alarm(say("closed"));
      return new Promise(() => {}); // nothing more can be done here
    }
    failed = true;
    alarm(say("trying"));
    await pause(PATIENCE);
  }
}
