"use strict";
// Keys for reviewers of many cases. Every page works without this: a key only presses a button of the page.
// A final answer takes two strokes, the first of which only picks it (data-pick).
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing) return;
  if (event.target.closest("input, textarea, select")) return;
  const key = event.key.toLowerCase();
  const wanted = [...document.querySelectorAll("[data-key]")].find((one) => one.dataset.key === key);
  if (!wanted) return;
  event.preventDefault();
  if ("pick" in wanted.dataset && document.activeElement !== wanted) wanted.focus({ focusVisible: true });
  else wanted.click();
});
