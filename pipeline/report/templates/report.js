// Filters the samples. Without it the page shows them all.
(() => {
  const form = document.getElementById("filter");
  if (!form) return;
  const samples = [...document.querySelectorAll("#gallery .sample")];
  const others = document.getElementById("others");
  const texts = samples.map((sample) => sample.textContent.toLowerCase());
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    const field = (name) => (form.elements[name] ? form.elements[name].value : "");
    const text = field("text").trim().toLowerCase();
    const [result, category] = [field("result"), field("category")];
    let matching = 0;
    samples.forEach((sample, i) => {
      const fits =
        (!result || sample.dataset.result === result) &&
        (!category || sample.dataset.category === category) &&
        (!text || texts[i].includes(text));
      sample.hidden = !fits;
      matching += fits;
    });
    const active = Boolean(text || result || category);
    if (others) others.open = active;
    form.querySelector("output").textContent = active ? `${matching} of ${samples.length} match` : "";
  });
})();
