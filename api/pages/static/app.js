// What the pages do by themselves: refresh, copy, tell what the pointer is on. Without it everything still can be read.
"use strict";

const live = () => document.getElementById("live");
let failing = false;

// The page is asked for again, and what is live in it replaced; what is open, focused and scrolled to stays so.
async function refresh() {
  const now = live();
  if (document.hidden || !now || now.contains(document.getSelection()?.anchorNode) && !document.getSelection().isCollapsed) return;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html", "X-MDR-Refresh": "1" } });
    if (answer.redirected) return location.reload();
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = next.getElementById("live");
    if (!fresh) throw new Error("no live part");
    keep(now, fresh);
    document.title = next.title;
    tell("");
  } catch {
    tell("· no answer, trying again");
  }
}

function keep(now, fresh) {
  const path = trail(document.activeElement, now);
  const scrolled = [...now.querySelectorAll(".scroll")].map((e) => [e.scrollLeft, e.scrollTop]);
  const open = [...now.querySelectorAll("details")].map((e) => e.open);
  now.replaceWith(document.adoptNode(fresh));
  fresh.querySelectorAll(".scroll").forEach((e, n) => scrolled[n] && e.scrollTo(...scrolled[n]));
  fresh.querySelectorAll("details").forEach((e, n) => { if (n in open) e.open = open[n]; });
  path?.reduce((e, n) => e?.children[n], fresh)?.focus({ preventScroll: true });
}

// The way from an element of the live part down to what has the focus, as places among children.
function trail(element, top) {
  if (!top.contains(element) || element === top) return null;
  const places = [];
  for (let e = element; e !== top; e = e.parentElement) places.unshift([...e.parentElement.children].indexOf(e));
  return places;
}

function tell(words) {
  failing = words !== "";
  document.querySelectorAll("[data-live]").forEach((e) => { e.textContent = failing ? words : "· refreshes itself"; });
  document.body.classList.toggle("failing", failing);
}

function again() {
  const seconds = Number(live()?.dataset.refresh);
  if (seconds) setTimeout(async () => { await refresh(); again(); }, 1000 * seconds * (failing ? 2 : 1));
}

async function copy(button) {
  const text = button.closest(".copy").querySelector("pre");
  try {
    await navigator.clipboard.writeText(text.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(text);
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

document.addEventListener("click", (e) => {
  const button = e.target.closest("[data-copy]");
  if (button) copy(button);
});

document.addEventListener("pointerover", (e) => {
  const slot = e.target.closest?.("[data-told]");
  const output = slot?.closest("figure")?.parentElement.querySelector(".told");
  if (!output) return;
  output.dataset.rest ??= output.textContent;
  output.textContent = slot.dataset.told;
  slot.closest("svg").addEventListener("pointerleave", () => { output.textContent = output.dataset.rest; }, { once: true });
});

document.addEventListener("keydown", (e) => {
  const typing = e.target.closest("input, textarea, select");
  if (e.key === "/" && !typing && !e.ctrlKey && !e.metaKey) {
    const field = document.querySelector('[data-key="/"]');
    if (field) { e.preventDefault(); field.focus(); }
  }
});

tell("");
again();
