// Runs before the first paint, so that nothing flashes in the other theme: the chosen one, else the system's.
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem("theme");
  } catch {
    // storage is off: the system's theme it is
  }
  const root = document.documentElement;
  root.toggleAttribute("data-chose-theme", theme === "light" || theme === "dark");
  if (!root.hasAttribute("data-chose-theme")) theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  root.dataset.theme = theme;
})();
