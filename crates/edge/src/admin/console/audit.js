// The journal: its newest records, live, by filters. Older ones on demand.

import { byId, make, pretty, show } from "./text.js";

/** Records that are kept in the page; the oldest go. */
const SHOWN_MAX = 1000;
/** Pause after each reading, so that a busy firewall does not keep the page busy. */
const PAUSE_MS = 1000;
/** The members of the form, as the firewall names them. */
const FILTERS = ["decision", "event", "effect", "server", "tool", "principal", "rule"];

/** The word for what a record says, and its kind. */
function verdict(record) {
  if (record.event === "denial") return ["denied", "bad"];
  if (record.event === "intent") {
    return record.decision?.effect === "deny" ? ["would be denied", "warn"] : ["permitted", "good"];
  }
  if (record.event === "hold") return ["held", "warn"];
  if (record.event === "outcome") return [record.outcome ?? "outcome", ""];
  if (record.event === "approval") return [record.approval?.answer ?? "approval", ""];
  return [record.event, ["gap", "recovery", "drop"].includes(record.event) ? "warn" : ""];
}

/** What a record is about, in a few words. */
function subject(record) {
  const target = record.target ?? {};
  const name = target.tool ?? target.prompt ?? target.uri ?? target.task;
  return [record.server, record.method, name].filter(Boolean).join(" ") || record.note || "";
}

/** The codes of rules that decided, or made a duty of the call. */
function rulesOf(record) {
  const { reasons = [], obligations = [] } = record.decision ?? {};
  const duties = obligations.map((duty) => duty.slice(duty.indexOf(":") + 1));
  return [...new Set(reasons.map((reason) => reason.code).concat(duties))];
}

function details(record) {
  const parts = [];
  if (record.operation?.effect) parts.push(record.operation.effect);
  if (record.principal) parts.push("by " + record.principal);
  if (record.peer && !record.principal) parts.push("from " + record.peer);
  const rules = rulesOf(record);
  if (rules.length > 0) parts.push("rule " + rules.slice(0, 3).join(", ") + (rules.length > 3 ? " and others" : ""));
  if (record.approval) parts.push("answer of " + record.approval.by);
  if (record["error.type"]) parts.push("error " + record["error.type"]);
  if (record.duration_us !== undefined) parts.push(record.duration_us < 10000 ? record.duration_us + " µs" : Math.round(record.duration_us / 1000) + " ms");
  return parts.join(", ");
}

function entry(record) {
  const item = document.createElement("li");
  const whole = document.createElement("details");
  const line = document.createElement("summary");
  const [word, kind] = verdict(record);
  line.append(
    make("span", "when", record.time.replace("T", " ").slice(0, 19)),
    make("span", "verdict " + kind, word),
    make("span", "subject", subject(record)),
    make("span", "more", details(record)),
  );
  whole.append(line);
  // What nobody looks at is not drawn.
  whole.addEventListener("toggle", () => {
    if (!whole.open || whole.children.length > 1) return;
    const text = make("pre", "");
    text.tabIndex = 0;
    text.setAttribute("role", "region");
    text.setAttribute("aria-label", "Record " + record.seq);
    show(text, pretty(JSON.stringify(record)).join("\n"), true);
    whole.append(text);
  });
  item.append(whole);
  return item;
}

/** The view. `ask` asks the firewall; `failed` takes an error. */
export function auditView(ask, failed) {
  let records = [];
  /** Where older ones are; null if there are none. */
  let older = null;
  /** The sequence number up to which all was read. */
  let change = null;
  /** Ends what waits for further records; null while the view is closed. */
  let following = null;

  function query(more) {
    const wanted = new URLSearchParams();
    for (const name of FILTERS) {
      const value = byId(`by-${name}`).value.trim();
      if (value) wanted.append(name, value);
    }
    for (const [name, value] of Object.entries(more)) wanted.append(name, value);
    return "audit?" + wanted;
  }

  function draw(fresh) {
    const place = byId("records");
    if (fresh) place.prepend(...fresh.map(entry));
    else place.replaceChildren(...records.map(entry));
    while (place.children.length > SHOWN_MAX && !place.lastElementChild.contains(document.activeElement)) {
      place.lastElementChild.remove();
      // What is older than those that went is no longer what comes next.
      older = null;
    }
    byId("older").hidden = older === null;
    suggest();
  }

  /** Offers the names that were seen. Those with characters that are not seen cannot be offered. */
  function suggest() {
    const seen = {
      server: (record) => [record.server],
      tool: (record) => [record.target?.tool],
      principal: (record) => [record.principal],
      rule: rulesOf,
    };
    for (const [name, of] of Object.entries(seen)) {
      const names = [...new Set(records.flatMap(of))].filter((text) => text && /^[!-~ ]{1,100}$/.test(text));
      byId(`seen-${name}`).replaceChildren(...names.sort().slice(0, 100).map((text) => new Option("", text)));
    }
  }

  function tell(text) {
    if (byId("audit-status").textContent !== text) byId("audit-status").textContent = text;
  }

  /** Reads the newest records. */
  async function read() {
    const asked = query({});
    const found = await ask(asked);
    if (following === null || asked !== query({})) return;
    records = found.records;
    older = found.older;
    change = found.change;
    draw(null);
    const count = records.length === 1 ? "1 record" : records.length + " records";
    tell(count + (older === null ? "." : ", and older ones may follow.") + (found.unreadable ? " The journal is damaged." : ""));
  }

  /** Reads what came since. Where more has come than one answer has, the list begins anew. */
  async function readOn() {
    const asked = query({});
    const found = await ask(query({ after: change }));
    if (following === null || asked !== query({})) return;
    change = found.change;
    if (found.older !== null) {
      records = found.records;
      older = found.older;
      draw(null);
    } else if (found.records.length > 0) {
      records = found.records.concat(records).slice(0, SHOWN_MAX);
      draw(found.records);
    }
  }

  async function readOlder() {
    // Whoever reads old records is not disturbed by new ones.
    byId("live").checked = false;
    const asked = query({});
    const found = await ask(query({ before: older }));
    if (following === null || asked !== query({})) return;
    older = found.older;
    records = records.concat(found.records);
    const first = found.records.map(entry);
    byId("records").append(...first);
    byId("older").hidden = older === null;
    tell(found.records.length + " older records" + (older === null ? "; these were the last." : "."));
    first[0]?.querySelector("summary").focus();
  }

  async function follow() {
    const mine = new AbortController();
    following = mine;
    while (following === mine) {
      try {
        if (change === null) await read();
        else if (byId("live").checked) {
          await ask("audit/changes?after=" + change, { signal: mine.signal });
          if (following === mine && byId("live").checked) await readOn();
        }
      } catch (error) {
        if (following !== mine) return;
        failed(error);
      }
      await new Promise((resume) => setTimeout(resume, PAUSE_MS));
    }
  }

  function open() {
    if (following === null) follow();
  }

  function close() {
    following?.abort();
    following = null;
  }

  function clear() {
    close();
    records = [];
    older = null;
    change = null;
    byId("records").replaceChildren();
    byId("filters").reset();
    for (const name of ["server", "tool", "principal", "rule"]) byId(`seen-${name}`).replaceChildren();
    tell("");
  }

  byId("filters").addEventListener("submit", (event) => {
    event.preventDefault();
    read().catch(failed);
  });
  byId("filters").addEventListener("reset", () => setTimeout(() => {
    if (following !== null) read().catch(failed);
  }));
  byId("older").addEventListener("click", () => readOlder().catch(failed));
  return { open, close, clear };
}
