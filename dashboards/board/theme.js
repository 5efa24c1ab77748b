// Light or dark. Owns the attribute data-theme of the page and the saved choice; runs before the first paint, which is
// why it is a classic script. "auto" follows the system.
"use strict";
{
  const THEMES = ["auto", "light", "dark"];
  const root = document.documentElement;

  const saved = () => {
    try {
      return localStorage.getItem("tickgate.theme");
    } catch {
      return null; // storage is forbidden: the choice lasts as long as the page
    }
  };

  const apply = (theme) => {
    root.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) button.textContent = theme;
  };

  const next = () => {
    const theme = THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length];
    apply(theme);
    try {
      localStorage.setItem("tickgate.theme", theme);
    } catch {
      // as above
    }
  };

  apply(THEMES.includes(saved()) ? saved() : "auto");
  document.addEventListener("DOMContentLoaded", () => {
    apply(root.dataset.theme);
    document.getElementById("theme").addEventListener("click", next);
  });
}
