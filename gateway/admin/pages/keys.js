"use strict";
// Keys for reviewers who answer many cases, and a filter for many labels. Every page works without this: a key
// only presses what is there. A final answer takes two strokes, the first of which only picks it (data-pick).
const pick = (button) => button.focus({ focusVisible: true });

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing) return;
  const key = event.key.toLowerCase();
  const field = event.target.closest("input, textarea, select");
  const letterInNumber = field && field.inputMode === "decimal" && /^[a-df-z?]$/.test(key); // e is a digit: 1e6
  if (field && !letterInNumber) return;
  const wanted = [...document.querySelectorAll("[data-key]")].find((one) => one.dataset.key === key && !one.hidden);
  if (!wanted) return;
  event.preventDefault();
  if (wanted.matches("input")) wanted.focus();
  else if ("pick" in wanted.dataset && document.activeElement !== wanted) pick(wanted);
  else wanted.click();
});

const filter = document.querySelector("[data-filter]");
if (filter) {
  const labels = [...document.querySelectorAll(".labels button")];
  const shown = () => labels.filter((one) => !one.hidden);
  const narrow = () => {
    const wanted = filter.value.trim().toLowerCase();
    for (const one of labels) one.hidden = !one.value.toLowerCase().includes(wanted);
    document.querySelector("[data-left]").textContent = wanted ? `${shown().length} of ${labels.length}` : "";
  };
  filter.closest(".filter").hidden = false;
  filter.addEventListener("input", narrow);
  filter.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.isComposing) {
      const typed = filter.value.trim().toLowerCase();
      const only = shown().length === 1 ? shown()[0] : shown().find((one) => one.value.toLowerCase() === typed);
      event.preventDefault();
      if (only) pick(only);
    } else if (event.key === "Escape") {
      filter.value = "";
      narrow();
      filter.blur();
    }
  });
  narrow(); // a page that comes back may have kept what was typed
}
