// Runs before the first paint: what the page looks like with script, and the colours that were chosen here before.
"use strict";
document.documentElement.classList.add("js");
try {
  const theme = localStorage.getItem("multimodal theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  const row = Number(localStorage.getItem("multimodal row")); // how high the last page's rows were: the server's pictures stand where the modules will have them
  if (row) document.documentElement.style.setProperty("--row", `${row}px`);
} catch {
  // a browser that keeps nothing shows the system's colours
}
