// Judgements: whether a hit is what the query looked for. The server keeps them beside the store, and takes the last one back.

import { get, post, remove } from "./api.js";
import { toast } from "./dom.js";

export class Judge {
  constructor(state) {
    this.state = state;
    this.asked = null;
    this.numbers = []; // of what was judged on this page, the last one at the end
    state.addEventListener("answer", ({ detail }) => detail.isNew && this.load());
  }

  /** What was judged for this query before. */
  async load() {
    const { state } = this;
    const { q, store } = state.asked;
    const asked = JSON.stringify([q, store]);
    if (asked === this.asked) return;
    this.asked = asked;
    state.judged = new Map();
    if (!q.trim()) return;
    try {
      const rows = await get("api/judgements", { q, store });
      if (this.asked !== asked) return;
      for (const row of rows.relevant ?? rows) if ("relevant" in row) state.judged.set(row.id, row.relevant);
      if (state.judged.size) state.tell("judged");
    } catch {
      this.asked = null; // judging itself says why it does not work
    }
  }

  async relevant(id, relevant) {
    const { state } = this;
    const { q, store } = state.asked;
    if (id === null || !q.trim()) return;
    const before = state.judged.get(id);
    state.judged.set(id, relevant);
    state.tell("judged");
    try {
      const { number } = await post("api/judgements", { store: store || state.store?.name, query: q, id, relevant });
      this.numbers.push(number);
      toast(relevant ? "Judged: yes, this is it." : "Judged: no, not this.", "Undo", () => this.undo());
    } catch (error) {
      before === undefined ? state.judged.delete(id) : state.judged.set(id, before);
      state.tell("judged");
      toast(error.message);
    }
  }

  async undo() {
    const { state } = this;
    try {
      // only this page's own: somebody else may have judged since
      await remove("api/judgements/last", { store: state.asked.store, number: this.numbers.at(-1) });
      this.numbers.pop();
      this.asked = null;
      state.judged = new Map();
      await this.load();
      state.tell("judged");
      toast("The last judgement is taken back.");
    } catch (error) {
      toast(error.message);
    }
  }
}
