// The journal: its newest records, live, by filters. Older ones on demand.

import { byId, make, portion, pretty, put } from "./text.js";

/** Records that are kept in the page, and characters of them: the ones that are furthest away go. */
const SHOWN_MAX = 1000;
const SHOWN_CHARS_MAX = 8 * 1024 * 1024;
/** Readings for one press of the button for older records: a rare one is far away. */
const READINGS_MAX = 16;
/** Pause after each reading, so that a busy firewall does not keep the page busy. */
const PAUSE_MS = 1000;
/** The members of the form, as the firewall names them. */
const FILTERS = ["decision", "event", "effect", "environment", "server", "tool", "principal", "rule", "session"];

/** The word for what a record says, and its kind. */
function verdict(record) {
  if (record.event === "denial") return ["denied", "bad"];
  if (record.event === "intent") {
    return record.decision?.effect === "deny" ? ["would be denied", "warn"] : ["permitted", "good"];
  }
  if (record.event === "hold") return ["held", "warn"];
  if (record.event === "outcome") return [record.outcome ?? "outcome", ""];
  if (record.event === "hold_state") return [record.approval?.answer ?? "hold_state", record.approval?.answer === "granted" ? "good" : ""];
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
  if (record.operation?.effect) parts.push("effect " + record.operation.effect);
  if (record.principal) parts.push("by " + record.principal);
  if (record.peer && !record.principal) parts.push("from " + record.peer);
  const rules = rulesOf(record);
  if (rules.length > 0) parts.push("rule " + rules.slice(0, 3).join(", ") + (rules.length > 3 ? " and others" : ""));
  if (record.approval?.by) parts.push("answer of " + record.approval.by);
  if (record["error.type"]) parts.push("error " + record["error.type"]);
  if (record.duration_us !== undefined) parts.push(record.duration_us < 10000 ? record.duration_us + " µs" : Math.round(record.duration_us / 1000) + " ms");
  return parts.join(", ");
}

/** The record as a text; of a long one the beginning, and a button for the rest. */
function wholeText(record) {
  const text = make("pre", "");
  text.tabIndex = 0;
  text.setAttribute("role", "region");
  text.setAttribute("aria-label", "Record " + record.seq);
  let [now, rest] = portion(pretty(JSON.stringify(record)).join("\n"));
  put(text, now, true);
  if (rest === "") return [text];
  const more = make("button", "", "Show more");
  more.type = "button";
  more.addEventListener("click", () => {
    [now, rest] = portion(rest);
    put(text, now, true);
    if (rest === "") more.remove();
  });
  return [text, more];
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
    if (whole.open && whole.children.length === 1) whole.append(...wholeText(record));
  });
  item.append(whole);
  return item;
}

/** Where the names are that a filter suggests. */
const SEEN = {
  environment: (record) => record.operation?.environments ?? [],
  server: (record) => [record.server],
  tool: (record) => [record.target?.tool],
  principal: (record) => [record.principal],
  rule: rulesOf,
  session: (record) => [record.session],
};

/** The view. `ask` asks the firewall; `failed` takes an error. */
export function auditView(ask, failed) {
  let records = [];
  /** The size of each of them, characters. */
  let sizes = new WeakMap();
  /** Whether newer ones than these were dropped: then live records do not come next. */
  let detached = false;
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

  /** Takes `fresh` in, before or after those that are kept; what is then too much goes at the other end. */
  function keep(fresh, after) {
    const place = byId("records");
    for (const record of fresh) sizes.set(record, JSON.stringify(record).length);
    records = after ? records.concat(fresh) : fresh.concat(records);
    if (after) place.append(...fresh.map(entry));
    else place.prepend(...fresh.map(entry));
    const isRead = place.contains(document.activeElement);
    let chars = records.reduce((sum, record) => sum + sizes.get(record), 0);
    while (records.length > SHOWN_MAX || (chars > SHOWN_CHARS_MAX && records.length > 1)) {
      const item = after ? place.firstElementChild : place.lastElementChild;
      if (item.contains(document.activeElement)) byId("audit-title").focus({ preventScroll: true });
      item.remove();
      chars -= sizes.get(after ? records.shift() : records.pop());
      if (after) {
        detached = true;
      } else {
        // What is older than those that went is no longer what comes next. Unless somebody reads here,
        // the list begins anew with the newest, and then it is known where older ones are.
        older = null;
        if (!isRead) change = null;
      }
    }
    byId("older").hidden = older === null;
    suggest();
  }

  /** Begins anew with `found`. */
  function begin(found) {
    records = [];
    sizes = new WeakMap();
    detached = false;
    byId("records").replaceChildren();
    older = found.older;
    change = found.change;
    keep(found.records, true);
  }

  /** Offers the names that were seen. Those with characters that are not seen cannot be offered. */
  function suggest() {
    for (const [name, of] of Object.entries(SEEN)) {
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
    begin(found);
    const count = records.length === 1 ? "1 record" : records.length + " records";
    tell(count + (older === null ? "." : ", and older ones may follow.") + (found.unreadable ? " The journal is damaged." : ""));
  }

  /** Reads what came since. Where more has come than one answer has, the list begins anew. */
  async function readOn() {
    const asked = query({});
    const found = await ask(query({ after: change }));
    if (following === null || asked !== query({})) return;
    change = found.change;
    if (found.older !== null) begin(found);
    else if (found.records.length > 0) keep(found.records, false);
  }

  async function readOlder() {
    // Whoever reads old records is not disturbed by new ones.
    byId("live").checked = false;
    const asked = query({});
    let found = null;
    for (let reading = 0; reading < READINGS_MAX && (found === null || (found.records.length === 0 && older !== null)); reading += 1) {
      tell("Reading older records …");
      found = await ask(query({ before: older }));
      if (following === null || asked !== query({})) return;
      older = found.older;
    }
    keep(found.records, true);
    const count = found.records.length === 1 ? "1 older record" : found.records.length + " older records";
    tell(count + (older !== null ? (found.records.length === 0 ? " so far; press again to look further back." : ".") : "; these were the last.")
      + (detached ? " Newer ones left the page; choose “Live” for the newest." : ""));
    const first = byId("records").children[records.length - found.records.length];
    first?.querySelector("summary").focus();
  }

  async function follow() {
    const mine = new AbortController();
    following = mine;
    while (following === mine) {
      try {
        if (change === null || (detached && byId("live").checked)) await read();
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
    sizes = new WeakMap();
    detached = false;
    older = null;
    change = null;
    byId("records").replaceChildren();
    byId("filters").reset();
    for (const name of Object.keys(SEEN)) byId(`seen-${name}`).replaceChildren();
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
