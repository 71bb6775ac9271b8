// The theme that was chosen, if one was, before anything is painted; else the system's.
"use strict";

const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
const chosen = localStorage.getItem("theme");
if (chosen) root.dataset.theme = chosen;

const other = () => ((root.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark" ? "light" : "dark");

addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("theme");
  const name = () => (document.getElementById("theme-name").textContent = other() === "dark" ? "Dark" : "Light");
  button.setAttribute("aria-label", "Switch between light and dark");
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = other();
    localStorage.setItem("theme", root.dataset.theme);
    name();
  });
  dark.addEventListener("change", name);
  name();
});
