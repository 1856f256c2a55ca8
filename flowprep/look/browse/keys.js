// The keys of the page. A picture and the list handle their own keys.

import { $ } from "./page.js";

// Escape leaves the search, the choice of a second video, or the comparison.
const leave = (browser, target) => {
  if (target === $("search")) {
    if (target.value) { target.value = ""; browser.list.refilter(); } else target.blur();
  } else if (browser.isPicking) browser.endPicking();
  else if (browser.other) browser.compare();
};

const search = (browser) => {
  if (browser.hidesList) browser.toggleList();
  $("search").focus();
  $("search").select();
};

// The action of a key, or undefined.
const actionOf = ({ key, shiftKey, target }, browser) => {
  const { controls, list, player } = browser;
  const always = {
    "/": () => search(browser),
    "?": () => $("help").showModal(),
    ArrowUp: () => list.move(-1),
    ArrowDown: () => list.move(1),
  };
  if (key in always || !browser.key) return always[key];
  if (/^[1-9]$/.test(key) && player.available[key - 1]) return () => player.toggle(player.available[key - 1]);
  const isPlain = !target.matches("button, input, a, summary");
  return {
    ArrowLeft: () => controls.step(shiftKey ? -10 : -1),
    ArrowRight: () => controls.step(shiftKey ? 10 : 1),
    Home: () => controls.step(-Infinity),
    End: () => controls.step(Infinity),
    " ": isPlain || target.type === "range" ? () => controls.togglePlay() : undefined,
    c: () => browser.compare(),
    l: () => browser.toggleList(),
    d: () => controls.changeDirection(),
    "[": () => controls.changeSpeed(-1),
    "]": () => controls.changeSpeed(1),
  }[key];
};

export const setUpKeys = (browser) => addEventListener("keydown", (event) => {
  const { target, key } = event;
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  if (key === "Escape") {
    leave(browser, target);
    return;
  }
  if (target === $("search") && key === "ArrowDown") {
    event.preventDefault();
    $("scroller").focus();
    return;
  }
  const isTyping = target.matches("input:not([type=range], [type=checkbox]), select, textarea");
  // If a picture has the focus, its own keys move the cross.
  if (isTyping || (event.shiftKey && target.matches(".stage"))) return;
  const act = actionOf(event, browser);
  if (!act) return;
  event.preventDefault();
  // Otherwise Home and End would also move in the list.
  event.stopPropagation();
  act();
}, { capture: true });
