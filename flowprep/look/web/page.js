// Code that the pages of `report` and `browse` share: colors, copying, searching. The page of
// `report` includes this file and table.js in its own script. The page of `browse` imports both.

export const $ = (id) => document.getElementById(id);

// ---- colors: as the system, light, dark

const THEMES = { auto: "Auto", light: "Light", dark: "Dark" };

export const setUpThemes = (button) => {
  const setTheme = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = THEMES[theme];
    button.setAttribute("aria-label", theme === "auto" ? "Colors: as the system" : `Colors: ${theme}`);
    button.value = theme;
  };
  const store = (theme) => {
    // A file opened from disk may have no storage.
    try {
      if (theme) localStorage.setItem("flowprep-theme", theme);
      return localStorage.getItem("flowprep-theme");
    } catch { return null; }
  };
  setTheme(THEMES[store()] ? store() : "auto");
  button.addEventListener("click", () => {
    const order = Object.keys(THEMES);
    const next = order[(order.indexOf(button.value) + 1) % order.length];
    setTheme(next);
    store(next);
  });
};

// ---- copying

export const copy = async (text) => {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.style.position = "fixed";
    area.style.opacity = "0";
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
};

// ---- searching

// Calls `onChange` when the user pauses while typing a search.
export const setUpSearch = (input, onChange) => {
  let pause = 0;
  input.addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(onChange, 120);
  });
  input.form.addEventListener("submit", (event) => { event.preventDefault(); onChange(); });
};

export const wordsOf = (input) => input.value.toLowerCase().split(/\s+/).filter(Boolean);
