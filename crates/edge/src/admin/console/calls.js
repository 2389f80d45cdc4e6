// The held calls: a list that follows what happens, and the whole story of one of them, with the
// form that answers it. A call is named by the address, `#hold=ID`.

import { byId, difference, fact, make, moment, portion, pretty, put, show, span } from "./text.js";

/** Calls of the history that are listed at first, and how many more on demand. */
const LISTED = 100;
/** Calls that are listed at most, and those of them that one answer of the firewall has. */
const LISTED_MAX = 1000;
const ANSWER_MAX = 500;
/** From this size on, bytes, a call is read again only if something has become of it. */
const LARGE_BYTES = 64 * 1024;

/** What the page says of a state. */
const STATES = {
  granted: "granted, not yet used",
  refused: "refused",
  expired: "expired",
  cancelled: "cancelled by the agent",
  spent: "granted, and sent",
  unknown: "granted; nobody knows whether the server got it",
};

/** Notes when a call expires by this machine's clock, which may differ from the firewall's. */
function timed(call) {
  call.until = Date.now() + call.expires_in_ms;
  return call;
}

function stateOf(call) {
  return call.state === "pending" ? "waiting, " + span(call.until - Date.now()) + " left" : STATES[call.state] ?? call.state;
}

function titleOf(call) {
  return call.target ?? call.method;
}

/** The view. `ask` asks the firewall; `failed` takes an error. */
export function callsView(ask, failed) {
  /** The calls that are listed, and the id of the one that is shown. */
  let calls = [];
  let chosen = "";
  /** The call that is shown in full: an answer names its digest, so it is for what was shown. */
  let shown = null;
  /** How many calls are listed, if there are as many. */
  let wanted = LISTED;
  /** The parameters of the call that is shown, as far as they are not drawn yet. */
  let rest = "";
  let marks = 0;
  /** What was drawn last, so that nothing is drawn twice: a reader keeps place and selection. */
  let drawn = "";
  /** The ids that waited when the list was last read; null before the first time. */
  let waited = null;

  function entry(call) {
    const item = document.createElement("li");
    const link = make("a", "call");
    link.href = "#hold=" + encodeURIComponent(call.id);
    link.dataset.id = call.id;
    const where = call.server + ", " + (call.environments.join(", ") || "no environment");
    link.append(make("strong", "", titleOf(call)), make("span", "", where), make("span", "", "by " + call.principal), make("span", "state"));
    item.append(link);
    return item;
  }

  function tell(call, item) {
    const state = item.querySelector(".state");
    if (state.textContent !== stateOf(call)) state.textContent = stateOf(call);
  }

  /** Draws the list. What is still there stays in place, and with it the focus. */
  function list() {
    const place = byId("calls");
    const ids = new Set(calls.map((call) => call.id));
    let lost = false;
    for (const item of [...place.children]) {
      if (ids.has(item.firstElementChild.dataset.id)) continue;
      lost ||= item.contains(document.activeElement);
      item.remove();
    }
    const there = new Map([...place.children].map((item) => [item.firstElementChild.dataset.id, item]));
    calls.forEach((call, index) => {
      const item = there.get(call.id) ?? entry(call);
      if (place.children[index] !== item) place.insertBefore(item, place.children[index] ?? null);
      if (call.id === chosen) item.firstElementChild.setAttribute("aria-current", "true");
      else item.firstElementChild.removeAttribute("aria-current");
      tell(call, item);
    });
    if (lost) byId("calls-title").focus();
  }

  /** Says how many calls wait, and which are new. */
  function announce(waiting, unlisted, pending) {
    const fresh = waited === null ? [] : waiting.filter((call) => !waited.has(call.id));
    waited = new Set(waiting.map((call) => call.id));
    let status = waiting.length === 0 ? "No call waits." : waiting.length === 1 ? "1 call waits." : waiting.length + " calls wait.";
    if (fresh.length > 0) status += " New: " + fresh.slice(0, 3).map(titleOf).join(", ") + (fresh.length > 3 ? " and others" : "") + ".";
    if (unlisted > 0) status += " " + unlisted + (pending ? " more wait and are not listed." : " older ones are not listed.");
    if (byId("status").dataset.said !== status) show(byId("status"), status);
    byId("status").dataset.said = status;
    document.title = (waiting.length ? "(" + waiting.length + ") " : "") + "Bartizan";
  }

  function facts(call) {
    const place = byId("facts");
    place.replaceChildren();
    fact(place, "Agent", call.principal);
    fact(place, "Calls itself", call.client);
    fact(place, "Server", call.server);
    fact(place, "Method", call.method);
    fact(place, "Environments", call.environments.join(", ") || "none");
    fact(place, "Selected before", Object.entries(call.facts ?? {}).map(([name, value]) => name + " " + value).join(", "));
    fact(place, "Effect", call.effect);
    fact(place, "Tags", call.tags.join(", "));
    fact(place, "Rule", call.code);
    fact(place, "Approvers", (call.approvers.join(", ") || "any approver") + (call.quorum > 1 ? "; " + call.quorum + " people must grant it" : ""));
    fact(place, "Granted through", call.granted_through);
    fact(place, "Asked", moment(call.asked_unix_ms));
    fact(place, call.state === "pending" ? "Waits until" : "Could wait until", moment(call.expires_unix_ms));
    const names = byId("names");
    names.replaceChildren();
    fact(names, "Hold", call.id);
    fact(names, "Call", call.call);
    fact(names, "Policy", call.revision);
    fact(names, "Definition", call.definition);
  }

  function compared(call, lines) {
    const before = call.previous === null || call.previous === undefined ? null : pretty(call.previous);
    byId("changes").hidden = before === null;
    const diff = byId("diff");
    diff.replaceChildren();
    if (before === null) return;
    const rows = difference(before, lines);
    if (rows === null) diff.textContent = "Too long to compare: more than 1,000 lines or 64 KiB.";
    for (const [sign, text] of rows ?? []) {
      diff.append(make("span", sign === "+" ? "added" : sign === "-" ? "removed" : "same", sign + " " + text));
    }
  }

  /** Draws the next portion of the parameters. */
  function drawOn() {
    const [now, later] = portion(rest);
    marks += put(byId("shown"), now, true);
    rest = later;
    byId("rest").hidden = rest === "";
    byId("rest-status").textContent = rest === "" ? "" : "This is the beginning; " + rest.length + " characters more are not shown yet.";
    byId("unseen").textContent = marks
      ? marks + " characters that are not seen are written by their code points, such as U+202E." : "";
  }

  /** Draws all of them. Other work of the page is done in between. */
  async function drawAll() {
    const id = chosen;
    while (id === chosen && rest !== "") {
      drawOn();
      await new Promise((resume) => setTimeout(resume));
    }
  }

  function answers(call) {
    const place = byId("answers");
    place.replaceChildren();
    for (const answer of call.answers) {
      const said = answer.by + ": " + answer.verdict + (answer.scope ? " (" + answer.scope + ")" : "");
      place.append(make("li", "", moment(answer.unix_ms) + " " + said + (answer.reason ? ", " + answer.reason : "")));
    }
    byId("answered").hidden = call.answers.length === 0;
  }

  function offers(call) {
    const place = byId("scope");
    const kept = place.value;
    place.replaceChildren(new Option("this call, once", ""));
    for (const scope of call.scopes) {
      place.append(new Option(scope.code + ": " + scope.count + " calls of this tool within " + span(scope.lasts_ms) + ", with any arguments", scope.code));
    }
    place.value = [...place.options].some((option) => option.value === kept) ? kept : "";
    byId("offers").hidden = call.scopes.length === 0;
  }

  function story(call) {
    shown = timed(call);
    byId("state").textContent = stateOf(call);
    const now = JSON.stringify({ ...call, until: 0, expires_in_ms: 0, expires_unix_ms: 0, waiting: 0 });
    if (now === drawn) return;
    drawn = now;
    byId("details").hidden = false;
    byId("hint").hidden = true;
    show(byId("story-title"), titleOf(call));
    show(byId("message"), call.message);
    facts(call);
    const lines = pretty(call.shown);
    byId("shown-title").textContent = (call.state === "spent" ? "What was sent: " : "What would be sent: ") + call.bytes + " bytes";
    const text = lines.join("\n");
    // What a reader has opened stays open: the parameters of a call never change.
    if (byId("shown").dataset.id !== call.id) {
      byId("shown").replaceChildren();
      byId("shown").dataset.id = call.id;
      rest = text;
      marks = 0;
      drawOn();
    }
    compared(call, lines);
    answers(call);
    offers(call);
    byId("answer").hidden = call.state !== "pending";
  }

  function forget(title) {
    shown = null;
    drawn = "";
    rest = "";
    byId("shown").replaceChildren();
    byId("shown").dataset.id = "";
    byId("details").hidden = true;
    byId("hint").hidden = chosen !== "";
    byId("story-title").textContent = title;
  }

  /** Whether nothing has become of the call that is shown, by the list that was just read. */
  function isSame() {
    const listed = calls.find((call) => call.id === chosen);
    if (shown?.id !== chosen || !listed) return false;
    return ["state", "changed_unix_ms", "waiting"].every((name) => listed[name] === shown[name]) && listed.answers.length === shown.answers.length;
  }

  async function reread() {
    const id = chosen;
    if (!id || (shown?.bytes > LARGE_BYTES && isSame())) return;
    try {
      const { approval } = await ask("approvals/" + encodeURIComponent(id));
      if (id === chosen) story(approval);
    } catch (error) {
      if (id !== chosen) return;
      if (error.status !== 404) throw error;
      forget("There is no such held call");
    }
  }

  /** Shows the call `id`; none if it is empty. */
  async function choose(id) {
    if (id !== chosen) {
      byId("reason").value = "";
      byId("scope").replaceChildren(); // what was chosen for one call is not chosen for another
      byId("failed").textContent = "";
      byId("outcome").textContent = "";
      chosen = id;
      forget(id ? "…" : "No call chosen");
    }
    list();
    if (!id) return;
    try {
      await reread();
      if (id === chosen) byId("story-title").focus();
    } catch (error) {
      failed(error);
    }
  }

  /** The calls in the states `states`, `most` of them if there are as many. */
  async function found(states, most) {
    let all = null;
    do {
      const before = all === null ? "" : "&before=" + encodeURIComponent(all.approvals[0].id);
      const count = Math.min(ANSWER_MAX, most - (all?.approvals.length ?? 0));
      const next = await ask("approvals?state=" + states + "&max=" + count + before);
      const approvals = next.approvals.concat(all?.approvals ?? []);
      all = { ...(all ?? next), approvals, more: next.approvals.length > 0 ? next.more : 0 };
    } while (all.more > 0 && all.approvals.length < most);
    return all;
  }

  /** Reads the list and the call that is shown again; the number of the latest change. */
  async function refresh() {
    const states = byId("states").value;
    const pending = states === "pending";
    const listed = await found(states, pending ? ANSWER_MAX : wanted);
    if (states !== byId("states").value) return listed.change;
    show(byId("who"), listed.approver);
    calls = listed.approvals.map(timed);
    if (!pending) calls.sort((one, other) => other.changed_unix_ms - one.changed_unix_ms);
    list();
    byId("older-calls").hidden = pending || listed.more === 0 || wanted >= LISTED_MAX;
    const waiting = states === "ended" ? (await found("pending", ANSWER_MAX)).approvals : calls.filter((call) => call.state === "pending");
    announce(waiting, listed.more, pending);
    await reread();
    return listed.change;
  }

  async function readOlder() {
    const before = new Set(calls.map((call) => call.id));
    wanted = Math.min(wanted + LISTED, LISTED_MAX);
    await refresh();
    const fresh = calls.find((call) => !before.has(call.id));
    if (fresh) byId("calls").children[calls.indexOf(fresh)].firstElementChild.focus();
  }

  async function answer(verdict) {
    const call = shown;
    if (call === null || !byId("answer").reportValidity()) return;
    if (verdict === "grant" && rest !== "") {
      byId("failed").textContent = "Not all of what would be sent is shown yet. Choose “Show all” above before you grant it.";
      byId("show-all").focus();
      return;
    }
    const buttons = [byId("grant"), byId("refuse")];
    byId("failed").textContent = "";
    byId("outcome").textContent = "";
    for (const button of buttons) button.disabled = true;
    try {
      const body = { digest: call.digest, reason: byId("reason").value.trim() };
      if (verdict === "grant" && byId("scope").value) body.scope = byId("scope").value;
      const answered = await ask("approvals/" + encodeURIComponent(call.id) + "/" + verdict, { method: "POST", body: JSON.stringify(body) });
      if (call.id === chosen) {
        byId("reason").value = "";
        story(answered.approval);
        byId("outcome").textContent = answered.approval.state === "pending"
          ? "Your answer counts; the call waits for another approver."
          : verdict === "grant" ? "Granted." : "Refused.";
        byId("story-title").focus();
      }
      await refresh();
    } catch (error) {
      if (error.status === 401) failed(error);
      else byId("failed").textContent = error.message;
    } finally {
      for (const button of buttons) button.disabled = false;
    }
  }

  function clear() {
    calls = [];
    chosen = "";
    wanted = LISTED;
    byId("older-calls").hidden = true;
    waited = null;
    forget("No call chosen");
    for (const id of ["calls", "status", "who", "outcome", "failed", "message", "facts", "names", "unseen", "shown", "diff", "answers", "scope"]) {
      byId(id).replaceChildren();
    }
    byId("status").dataset.said = "";
    byId("states").value = "pending";
    byId("reason").value = "";
    document.title = "Bartizan";
  }

  byId("states").addEventListener("change", () => {
    wanted = LISTED;
    refresh().catch(failed);
  });
  byId("older-calls").addEventListener("click", () => readOlder().catch(failed));
  byId("show-more").addEventListener("click", drawOn);
  byId("show-all").addEventListener("click", drawAll);
  byId("grant").addEventListener("click", () => answer("grant"));
  byId("refuse").addEventListener("click", () => answer("refuse"));
  byId("answer").addEventListener("submit", (event) => event.preventDefault());
  setInterval(() => {
    const items = new Map([...byId("calls").children].map((item) => [item.firstElementChild.dataset.id, item]));
    for (const call of calls) if (items.has(call.id)) tell(call, items.get(call.id));
    if (shown !== null) byId("state").textContent = stateOf(shown);
  }, 1000);
  return { choose, clear, refresh, open: () => {}, close: () => {} };
}
