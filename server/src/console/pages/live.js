// Keeps a page as the fleet is. Everything is readable without it.
"use strict";
const main = () => document.querySelector("main");
const isTyped = () => [...document.querySelectorAll("main input:not([type=hidden]), main select")]
  .some((input) => input === document.activeElement || input.value !== (input.defaultValue ?? input.value));

function tellOfChange() {
  const changed = document.getElementById("changed");
  if (changed) changed.hidden = false;
}

// Loads the page anew and puts its content in the place of the old one, unless somebody is typing.
async function renew() {
  if (isTyped()) return tellOfChange();
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
  // Asked last, with nothing awaited after it: what is typed while the page is on its way stays too.
  if (isTyped()) return tellOfChange();
  if (fresh && fresh.innerHTML !== main().innerHTML) main().replaceWith(fresh);
}

function put(id, html) {
  const old = document.getElementById(id);
  if (!old) return false;
  old.outerHTML = html;
  document.getElementById(id).classList.add("fresh");
  return true;
}

function show(change) {
  const revision = main().dataset.revision;
  if (revision === undefined) return void renew();
  if (change.first) { if (change.revision !== revision && location.search === "") renew(); return; }
  document.getElementById("tiles").innerHTML = change.tiles;
  const unknown = change.rows.filter(([id, html]) => !put(id, html)).length;
  main().dataset.revision = change.revision;
  if (unknown + change.gone > 0) {
    if (location.search === "" && scrollY === 0) renew(); else tellOfChange();
  }
}

const told = document.getElementById("live");
if (told) {
  const stream = new EventSource(document.querySelector("a.brand").href + "live");
  stream.onopen = () => { told.textContent = "live"; };
  stream.onerror = () => { told.textContent = "not live: is the console still running?"; };
  stream.onmessage = (event) => show(JSON.parse(event.data));
}
