"use strict";
const root = document.currentScript.dataset.root;

// Labs: every state was rendered ahead. The states count up like the digits of a number, the last control fastest.
for (const lab of document.querySelectorAll(".lab")) {
  const { controls, pictures, texts } = JSON.parse(lab.querySelector("script").textContent);
  const inputs = [...lab.querySelectorAll("input, select")];
  const [image, readOut] = [lab.querySelector("img"), lab.querySelector(".read-out")];
  const at = (input) => (input.tagName === "SELECT" ? input.selectedIndex : Number(input.value));
  const show = () => {
    const state = inputs.reduce((place, input, i) => place * controls[i].options.length + at(input), 0);
    image.src = lab.dataset.folder + pictures[state];
    image.alt = readOut.textContent = texts[state];
    inputs.forEach((input, i) => {
      if (input.type !== "range") return;
      input.nextElementSibling.textContent = controls[i].options[at(input)];
      input.setAttribute("aria-valuetext", controls[i].options[at(input)]);
    });
  };
  inputs.forEach((input) => input.addEventListener("input", show));
  show(); // a browser that goes back remembers where the controls stood
}

// Search: the index is a script, loaded when it is first needed, because pages from disk may not fetch.
const box = document.getElementById("search");
const results = document.getElementById("results");
const load = () => {
  if (load.begun) return;
  load.begun = true;
  const script = document.createElement("script");
  script.src = root + "search.js";
  script.onload = find;
  document.head.append(script);
};
const count = (text, word) => text.split(word).length - 1;
const score = ([, page, heading, text], words) => {
  const [title, head, body] = [page, heading, text].map((each) => each.toLowerCase());
  const found = words.map((word) => 20 * count(title, word) + 10 * count(head, word) + Math.min(9, count(body, word)));
  return found.every(Boolean) ? found.reduce((sum, each) => sum + each, 0) : 0;
};
const excerpt = (text, word) => {
  const start = Math.max(0, text.toLowerCase().indexOf(word) - 50);
  return (start ? "… " : "") + text.slice(start, start + 160) + " …";
};
function find() {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  results.hidden = !words.length;
  if (!words.length || typeof SEARCH === "undefined") return;
  const found = SEARCH.map((row) => [score(row, words), row]).filter(([points]) => points);
  found.sort((one, other) => other[0] - one[0]);
  const summary = document.createElement("p");
  summary.textContent = found.length ? `${found.length} sections` : "Nothing found.";
  const list = document.createElement("ol");
  for (const [, [address, page, heading, text]] of found.slice(0, 12)) {
    const [item, link, line] = ["li", "a", "p"].map((name) => document.createElement(name));
    link.href = root + address;
    link.textContent = heading === page ? page : `${page} › ${heading}`;
    line.textContent = excerpt(text, words[0]);
    item.append(link, line);
    list.append(item);
  }
  results.replaceChildren(summary, list);
}
box.addEventListener("focus", load);
box.addEventListener("input", () => (load(), find()));
results.addEventListener("click", (event) => (results.hidden = event.target.closest("a") !== null));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") results.hidden = true;
  if (event.key === "/" && !event.target.closest("input, select")) {
    event.preventDefault();
    box.focus();
  }
});

// What scrolls sideways can be reached, and so scrolled, with the keyboard.
const reach = () => {
  for (const each of document.querySelectorAll("pre, .wide, .formula")) {
    if (each.scrollWidth > each.clientWidth) each.tabIndex = 0;
    else each.removeAttribute("tabindex");
  }
};
reach();
addEventListener("resize", reach);
document.addEventListener("toggle", reach, true);
