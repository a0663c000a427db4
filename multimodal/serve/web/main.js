// The page: makes its parts and connects them. Each listens to the state; none knows the others.

import { get } from "./api.js";
import { chips } from "./chips.js";
import { el, toast } from "./dom.js";
import { Facets } from "./facets.js";
import { Grid } from "./grid.js";
import { Judge } from "./judge.js";
import { Keys } from "./keys.js";
import { line, suggestions } from "./line.js";
import { options, tools } from "./options.js";
import { Search } from "./search.js";
import { start } from "./start.js";
import { state } from "./state.js";
import { Viewer } from "./viewer.js";

document.querySelector("#line .plain")?.remove(); // the controls beside the hits do the same
let columns = null;
let map = null;
const search = new Search(state);
const grid = new Grid(state, search);
const judge = new Judge(state);
const facets = new Facets(state);
const viewer = new Viewer(state, judge, grid, search);
chips(state);
suggestions(state);
options(state, grid, facets);
start(state);
const keys = new Keys(state, { line: line(state), grid, facets, judge });
tools(state, keys);
view();
state.addEventListener("asked", view);
search.ask();
if (state.picture !== null) viewer.show();

await stores();
state.addEventListener("retry", () => state.stores.length || stores());
if (state.asked.where && innerWidth > 1000) facets.toggle(true, false);
document.documentElement.dataset.ready = "true";

/** What is served. A server that has just begun may still be reading it. */
async function stores() {
  try {
    state.stores = await get("api/stores");
    state.tell("store");
  } catch (error) {
    toast(error.message, "Try again", () => state.tell("retry"));
  }
}

/** One of the views; those that are seldom needed are loaded when they are first shown. */
async function view() {
  const { view } = state.asked;
  const page = document.body.classList;
  for (const name of ["columns", "map"]) {
    document.getElementById(name).hidden = view !== name || (name === "columns" && !state.asked.q.trim());
    page.toggle(`view-${name}`, view === name);
  }
  document.getElementById("hits").hidden = view === "columns" || view === "map";
  if (view === "columns") {
    const { Columns } = await import("./columns.js");
    columns ??= new Columns(state);
    columns.follow();
  }
  if (view === "map") await showMap();
  else map?.hide();
  if (view === "") grid.arrange();
}

async function showMap() {
  const box = document.getElementById("map");
  try {
    if (!map) {
      const { mount } = await import("./map.js");
      if (!document.getElementById("map-css")) document.head.append(el("link", { id: "map-css", rel: "stylesheet", href: "web/map.css" }));
      map ??= await mount(box, state);
    }
    map.show();
  } catch (error) {
    box.replaceChildren(el("p", { role: "alert" }, `There is no map to show: ${error.message}`));
  }
}
