// The same as a table, and a summary that a screen reader reads aloud, at most every two seconds.

import { setText } from "./text.js";

const BETWEEN_SUMMARIES = 2000; // ms
const COLUMNS = ["asked", "refused", "accepted", "delivered", "in_flight", "waiting", "failed", "unknown", "lost", "twice", "recovered"];
const HEADS = { in_flight: "in flight", unknown: "not yet known", recovered: "arrived without a 2xx" };

export class NumbersTable {
  #rows = new Map();
  #details = document.getElementById("as-table");
  #summaryAt = 0;
  #summary = "";

  constructor() {
    const head = document.querySelector("#as-table thead tr");
    for (const name of ["lane", ...COLUMNS]) {
      const cell = head.appendChild(document.createElement("th"));
      cell.scope = "col";
      cell.textContent = HEADS[name] ?? name;
    }
  }

  show(lanes, titles, now) {
    for (const { lane, subject, numbers } of this.#details.open ? lanes : []) {
      const cells = this.#row(lane);
      setText(cells[0], titles[subject]);
      COLUMNS.forEach((name, i) => setText(cells[i + 1], `${numbers[name]}`));
    }
    if (now - this.#summaryAt > BETWEEN_SUMMARIES) this.#sayWhatHasChanged(lanes, now);
  }

  #row(lane) {
    if (!this.#rows.has(lane)) {
      const row = document.querySelector("#as-table tbody").appendChild(document.createElement("tr"));
      const head = row.appendChild(document.createElement("th"));
      head.scope = "row";
      this.#rows.set(lane, [head, ...COLUMNS.map(() => row.appendChild(document.createElement("td")))]);
    }
    return this.#rows.get(lane);
  }

  #sayWhatHasChanged(lanes, now) {
    const parts = lanes.filter(({ numbers }) => numbers.asked).map(({ lane, numbers: n }) => {
      const open = n.in_flight + n.waiting + n.unknown;
      return `Lane ${lane}: ${n.delivered} of ${n.accepted} delivered${open ? `, ${open} on their way` : ""}${n.lost ? `, ${n.lost} lost` : ""}${n.twice ? `, ${n.twice} twice` : ""}${n.failed ? `, ${n.failed} failed` : ""}.`;
    });
    const summary = parts.join(" ");
    if (summary === this.#summary) return;
    this.#summary = summary;
    this.#summaryAt = now;
    document.getElementById("summary").textContent = summary;
  }
}
