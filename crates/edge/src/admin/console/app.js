// The page on which people answer held calls. Everything that it shows came from an agent, so it is
// put into the page as text (`textContent`), never as markup, and characters that are not seen are
// written by their code points.
"use strict";

const byId = (id) => document.getElementById(id);
/** The approver's token, for as long as the page lives. */
let token = "";
/** The key of the session of somebody who signed in at the issuer; its cookie goes with each request. */
let session = "";
/** The calls that are listed, and the id of the one that is shown. */
let calls = [];
let chosen = "";
/** The call that is shown in full: an answer names its digest, so it is for what was shown. */
let shown = null;
/** Ends the request that waits for changes. */
let watching = null;

const PAUSE_MS = 2000;
/** Most lines of either text that are compared; the work grows with their product. */
const DIFF_LINES_MAX = 1000;

// Control, format and other characters without a glyph, and spaces that look like another or like none.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Cs}\p{Zl}\p{Zp}\u00a0\u115f\u1160\u2000-\u200f\u202f\u205f\u2800\u3000\u3164\ufe00-\ufe0f\uffa0\u{e0100}-\u{e01ef}]/u;

/** Adds `text` to `place`; what is not seen gets a mark. Returns how many marks it made. */
function put(place, text, keepLines) {
  let plain = "";
  let marks = 0;
  const flush = () => {
    if (plain) place.append(document.createTextNode(plain));
    plain = "";
  };
  for (const character of text) {
    if (keepLines && character === "\n") {
      plain += character;
    } else if (UNSEEN.test(character)) {
      flush();
      const mark = document.createElement("span");
      mark.className = "unseen";
      mark.textContent = "U+" + character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
      place.append(mark);
      marks += 1;
    } else {
      plain += character;
    }
  }
  flush();
  return marks;
}

/** Puts `text` into `place` in place of what it holds. */
function show(place, text, keepLines) {
  place.replaceChildren();
  return put(place, text, keepLines);
}

/** Breaks a JSON text into lines. Numbers stay as they were sent: nothing is rounded. */
function pretty(json) {
  const lines = [];
  let line = "";
  let depth = 0;
  const end = () => {
    lines.push("  ".repeat(Math.min(depth, 40)) + line.trim());
    line = "";
  };
  const token = /"(?:[^"\\]|\\.)*"|[[\]{},:]|[^\s"[\]{},:]+/gsu;
  let previous = "";
  for (const [part] of json.matchAll(token)) {
    if (part === "{" || part === "[") {
      line += part;
      end();
      depth += 1;
    } else if (part === "}" || part === "]") {
      if (previous === "{" || previous === "[") {
        depth -= 1;
        line = lines.pop().trim() + part;
      } else {
        end();
        depth -= 1;
        line = part;
      }
    } else if (part === ",") {
      line += part;
      end();
    } else if (part === ":") {
      line += ": ";
    } else if (part.startsWith('"')) {
      // Decoded and written anew: what an escape means is seen, and a line end stays an escape.
      line += JSON.stringify(JSON.parse(part));
    } else {
      line += part;
    }
    previous = part;
  }
  end();
  return lines;
}

/** The lines of both texts in order, each with " ", "-" or "+"; null where they are too long. */
function difference(before, after) {
  if (before.length > DIFF_LINES_MAX || after.length > DIFF_LINES_MAX) return null;
  const width = after.length + 1;
  const common = new Uint16Array((before.length + 1) * width);
  for (let i = before.length - 1; i >= 0; i -= 1) {
    for (let j = after.length - 1; j >= 0; j -= 1) {
      common[i * width + j] = before[i] === after[j]
        ? common[(i + 1) * width + j + 1] + 1
        : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
    }
  }
  const lines = [];
  let i = 0;
  let j = 0;
  while (i < before.length || j < after.length) {
    if (i < before.length && j < after.length && before[i] === after[j]) {
      lines.push([" ", before[i]]);
      i += 1;
      j += 1;
    } else if (j >= after.length || (i < before.length && common[(i + 1) * width + j] >= common[i * width + j + 1])) {
      lines.push(["-", before[i]]);
      i += 1;
    } else {
      lines.push(["+", after[j]]);
      j += 1;
    }
  }
  return lines;
}

async function ask(path, options = {}) {
  const headers = session ? { "x-bartizan-session": session } : { authorization: "Bearer " + token };
  if (options.body) headers["content-type"] = "application/json";
  const answer = await fetch(path, { ...options, headers, cache: "no-store", credentials: session ? "same-origin" : "omit", redirect: "error" });
  const body = answer.headers.get("content-type")?.startsWith("application/json") ? await answer.json() : null;
  if (!answer.ok) {
    const said = body?.error;
    const error = new Error(said ? said.message + (said.hint ? " (" + said.hint + ")" : "") : "HTTP " + answer.status);
    error.status = answer.status;
    throw error;
  }
  return body;
}

/** Notes when a call expires by this machine's clock, which may differ from the firewall's. */
function timed(call) {
  call.until = Date.now() + call.expires_in_ms;
  return call;
}

function left(call) {
  const seconds = Math.max(0, Math.round((call.until - Date.now()) / 1000));
  const minutes = Math.floor(seconds / 60);
  return minutes > 90 ? Math.round(minutes / 60) + " h" : minutes > 0 ? minutes + " min " + (seconds % 60) + " s" : seconds + " s";
}

function stateOf(call) {
  return call.state === "pending" ? "waiting, " + left(call) + " left" : call.state;
}

function list() {
  const place = byId("calls");
  const focused = document.activeElement?.dataset?.id;
  place.replaceChildren();
  for (const call of calls) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.id = call.id;
    if (call.id === chosen) button.setAttribute("aria-current", "true");
    const title = document.createElement("strong");
    put(title, call.target ?? call.method);
    const where = document.createElement("span");
    put(where, call.server + " - " + (call.environments.join(", ") || "no environment"));
    const who = document.createElement("span");
    put(who, call.principal);
    const state = document.createElement("span");
    state.className = "state";
    state.textContent = stateOf(call);
    button.append(title, where, who, state);
    button.addEventListener("click", () => choose(call.id, true));
    item.append(button);
    place.append(item);
    if (focused === call.id) button.focus();
  }
  const waiting = calls.filter((call) => call.state === "pending").length;
  const status = waiting === 0 ? "No call waits." : waiting === 1 ? "1 call waits." : waiting + " calls wait.";
  if (byId("status").textContent !== status) byId("status").textContent = status;
  document.title = (waiting ? "(" + waiting + ") " : "") + "Approvals - Bartizan";
}

function fact(name, text) {
  if (text === null || text === undefined || text === "") return;
  const term = document.createElement("dt");
  term.textContent = name;
  const value = document.createElement("dd");
  put(value, String(text));
  byId("facts").append(term, value);
}

function story(call) {
  shown = timed(call);
  show(byId("story-title"), call.target ?? call.method);
  byId("details").hidden = false;
  show(byId("message"), call.message);
  byId("facts").replaceChildren();
  fact("State", stateOf(call));
  fact("Agent", call.principal);
  fact("Calls itself", call.client);
  fact("Server", call.server);
  fact("Method", call.method);
  fact("Environments", call.environments.join(", ") || "none");
  fact("Selected before", Object.entries(call.facts ?? {}).map(([name, value]) => name + " " + value).join(", "));
  fact("Effect", call.effect);
  fact("Tags", call.tags.join(", "));
  fact("Rule", call.code);
  fact("Approvers", (call.approvers.join(", ") || "anybody") + (call.quorum > 1 ? ", " + call.quorum + " people" : ""));
  fact("Definition", call.definition);
  fact("Policy", call.revision);
  fact("Asked", new Date(call.asked_unix_ms).toISOString());
  fact("Waits until", new Date(call.expires_unix_ms).toISOString());
  fact("Hold", call.id);
  fact("Call", call.call);
  const lines = pretty(call.shown);
  byId("shown-title").textContent = "What would be sent: " + call.bytes + " bytes";
  const marks = show(byId("shown"), lines.join("\n"), true);
  byId("unseen").textContent = marks
    ? marks + " characters that are not seen are written by their code points, such as U+202E." : "";
  const before = call.previous === null || call.previous === undefined ? null : difference(pretty(call.previous), lines);
  byId("changes").hidden = call.previous === null || call.previous === undefined;
  const diff = byId("diff");
  diff.replaceChildren();
  if (before === null) diff.textContent = "Too long to compare.";
  for (const [sign, text] of before ?? []) {
    const row = document.createElement("span");
    row.className = sign === "+" ? "added" : sign === "-" ? "removed" : "same";
    put(row, sign + " " + text);
    diff.append(row);
  }
  const answers = byId("answers");
  answers.replaceChildren();
  for (const answer of call.answers) {
    const item = document.createElement("li");
    put(item, new Date(answer.unix_ms).toISOString() + " " + answer.by + ": " + answer.verdict + (answer.scope ? " (" + answer.scope + ")" : "") + (answer.reason ? ", " + answer.reason : ""));
    answers.append(item);
  }
  byId("answers-title").hidden = call.answers.length === 0;
  const offers = byId("scope");
  const kept = offers.value;
  offers.replaceChildren(new Option("this call, once", ""));
  for (const scope of call.scopes) {
    const minutes = Math.round(scope.lasts_ms / 60000);
    offers.append(new Option(scope.code + ": " + scope.count + " calls of this tool within " + minutes + " min, with any arguments", scope.code));
  }
  offers.value = [...offers.options].some((option) => option.value === kept) ? kept : "";
  byId("offers").hidden = call.scopes.length === 0;
  byId("answer").hidden = call.state !== "pending";
}

async function choose(id, moveFocus) {
  if (id !== chosen) {
    byId("reason").value = "";
    byId("failed").textContent = "";
  }
  chosen = id;
  list();
  try {
    story((await ask("approvals/" + encodeURIComponent(id))).approval);
    if (moveFocus) byId("story-title").focus();
  } catch (error) {
    failed(error);
  }
}

function failed(error) {
  if (error.status === 401) {
    leave(session ? "You are no longer signed in." : "This token is not accepted.");
  } else {
    byId("failed").textContent = error.message;
    byId("status").textContent = "The firewall cannot be reached or refuses: " + error.message;
  }
}

async function answer(verdict) {
  const call = shown;
  if (call === null || !byId("answer").reportValidity()) return;
  const buttons = [byId("grant"), byId("refuse")];
  byId("failed").textContent = "";
  for (const button of buttons) button.disabled = true;
  try {
    const body = { digest: call.digest, reason: byId("reason").value.trim() };
    if (verdict === "grant" && byId("scope").value) body.scope = byId("scope").value;
    const answered = await ask("approvals/" + encodeURIComponent(call.id) + "/" + verdict, { method: "POST", body: JSON.stringify(body) });
    story(answered.approval);
    byId("reason").value = "";
    await refresh();
    byId("story-title").focus();
  } catch (error) {
    failed(error);
  } finally {
    for (const button of buttons) button.disabled = false;
  }
}

async function refresh() {
  const state = byId("states").value;
  const found = await ask("approvals?state=" + (state || "all"));
  calls = found.approvals.map(timed);
  list();
  return found.change;
}

/** Waits for changes; after each, the list and the call that is shown are read again. */
async function watch() {
  let change = null;
  while (token || session) {
    watching = new AbortController();
    try {
      if (change !== null) await ask("approvals/changes?after=" + change, { signal: watching.signal });
      change = await refresh();
      if (chosen) await choose(chosen, false);
    } catch (error) {
      if (!token && !session) return;
      failed(error);
      await new Promise((resume) => setTimeout(resume, PAUSE_MS));
    }
  }
}

function leave(why) {
  token = "";
  session = "";
  calls = [];
  chosen = "";
  shown = null;
  watching?.abort();
  byId("calls").replaceChildren();
  byId("details").hidden = true;
  byId("story-title").textContent = "No call chosen";
  byId("console").hidden = true;
  byId("leave").hidden = true;
  byId("who").hidden = true;
  byId("enter").hidden = false;
  byId("refused").textContent = why;
  byId("token").value = "";
  byId("token").focus();
}

/** Shows the calls to whoever has just come in; `refused` says that a 401 means that. */
async function enter(refused) {
  byId("refused").textContent = "";
  try {
    const who = session ? await ask("console/session") : null;
    await refresh();
    show(byId("who"), who ? who.id : "");
    byId("who").hidden = !who;
  } catch (error) {
    leave(error.status === 401 ? refused : error.message);
    return;
  }
  byId("token").value = "";
  byId("enter").hidden = true;
  byId("console").hidden = false;
  byId("leave").hidden = false;
  byId("main").focus();
  watch();
}

/** Ends the session at the firewall, too. */
async function signOut() {
  try {
    if (session) await ask("console/sign-out", { method: "POST" });
    leave("");
  } catch (error) {
    failed(error);
  }
}

const FAILURES = {
  unavailable: "The issuer cannot be reached, or not be used. Sign in with a token, or try again.",
  "not-begun": "This sign-in was begun in another browser, or too long ago. Sign in again.",
  denied: "The issuer did not sign you in.",
  "no-group": "You are signed in there, but in no group that may approve.",
  refused: "The answer of the issuer is not accepted. The journal says why.",
};

/** What a sign-in brought back, after the `#` of the address, where nobody else sees it. */
function arrive() {
  const [what, value] = location.hash.slice(1).split("=");
  if (!value || (what !== "signed-in" && what !== "failed")) return;
  history.replaceState(null, "", location.pathname);
  if (what === "signed-in") {
    session = value;
    enter("You are no longer signed in.");
  } else {
    byId("refused").textContent = FAILURES[value] ?? FAILURES.refused;
  }
}

/** Offers to sign in at the issuer, if there is one. */
async function offer() {
  const { sign_in: issuer } = await (await fetch("console/options", { cache: "no-store", credentials: "omit", redirect: "error" })).json();
  if (!issuer) return;
  show(byId("sign-in"), "Sign in with " + issuer.name);
  byId("sign-in").addEventListener("click", () => location.assign(issuer.url));
  byId("issuer").hidden = false;
}

byId("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  enter("This token is not accepted.");
});
byId("leave").addEventListener("click", signOut);
byId("states").addEventListener("change", () => refresh().catch(failed));
byId("grant").addEventListener("click", () => answer("grant"));
byId("refuse").addEventListener("click", () => answer("refuse"));
byId("answer").addEventListener("submit", (event) => event.preventDefault());
setInterval(() => {
  for (const button of byId("calls").querySelectorAll("button")) {
    const call = calls.find((call) => call.id === button.dataset.id);
    if (call) button.querySelector(".state").textContent = stateOf(call);
  }
}, 1000);
arrive();
offer().catch(() => {});
