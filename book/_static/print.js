// On paper a page is light, whatever it is on the screen, and tables that a click opens are open.
(() => {
  const root = document.documentElement;
  let theme, opened;
  addEventListener("beforeprint", () => {
    theme = root.dataset.theme;
    root.dataset.theme = "light";
    opened = [...document.querySelectorAll("details.above-output:not([open])")];
    opened.forEach((details) => { details.open = true; });
  });
  addEventListener("afterprint", () => {
    root.dataset.theme = theme;
    opened.forEach((details) => { details.open = false; });
  });
})();
