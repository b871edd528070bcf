// Filters and sorts the samples, and marks where SFT's and the policy's words differ. Without it the page shows them all.
(() => {
  const form = document.getElementById("filter");
  if (!form) return;
  const [gallery, others] = ["gallery", "others"].map((id) => document.getElementById(id));
  const legend = document.getElementById("legend");
  const samples = [...gallery.querySelectorAll(".sample")];
  const places = samples.map((sample) => sample.parentNode);
  const texts = samples.map((sample) => sample.textContent.toLowerCase());
  const value = (name) => (form.elements[name] ? form.elements[name].value : "");

  const wanted = () => {
    const [text, result, category, cut] = [value("text").trim().toLowerCase(), ...["result", "category", "cut"].map(value)];
    if (!text && !result && !category && !cut) return null;
    return (sample, i) =>
      (!result || sample.dataset.result === result) &&
      (!category || sample.dataset.category === category) &&
      (!cut || sample.dataset.cut.split(" ").includes(cut)) &&
      (!text || texts[i].includes(text));
  };

  // Untouched, the page keeps its choice of samples above the others; filtered or sorted, all stand in one order.
  let arranged = "false";
  const arrange = (all, key) => {
    if (arranged === (arranged = all + key)) return;
    const [, minus, figure] = (key || "-margin").match(/^(-?)(.+)$/);
    const number = (sample) => Number(sample.dataset[figure] ?? NaN) * (minus ? -1 : 1);
    const rank = (a, b) => Number.isNaN(number(a)) - Number.isNaN(number(b)) || number(a) - number(b) || 0;
    if (all) gallery.append(...[...samples].sort(rank));
    else samples.forEach((sample, i) => places[i].append(sample));
    if (!others) return;
    others.hidden = all;
    gallery.append(others);
  };

  const mark = (on) => {
    if (!legend || legend.hidden !== on) return;
    legend.hidden = !on;
    for (const word of gallery.querySelectorAll(".answer .text > *")) {
      const made = document.createElement(!on ? "span" : word.closest(".sft") ? "del" : "ins");
      made.append(...word.childNodes);
      word.replaceWith(made);
    }
  };

  const update = () => {
    const fits = wanted();
    samples.forEach((sample, i) => (sample.hidden = Boolean(fits) && !fits(sample, i)));
    arrange(Boolean(fits || value("order")), value("order"));
    mark(Boolean(form.elements.differences?.checked));
    const matching = samples.filter((sample) => !sample.hidden).length;
    form.querySelector("output").textContent = fits ? `${matching} of ${samples.length} match` : "";
  };

  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", update);
  form.addEventListener("reset", () => setTimeout(update));
})();
