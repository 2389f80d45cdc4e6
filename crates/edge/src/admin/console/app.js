// The page on which people answer held calls and see what the firewall does. This file signs in,
// shows the view that the address names, and keeps it up to date.

import { byId, show } from "./text.js";
import { auditView } from "./audit.js";
import { callsView } from "./calls.js";
import { serversView } from "./servers.js";

/** The approver's token, or the key of a session, for as long as the page lives. */
let token = "";
/** Whether it is that of somebody who signed in at the issuer; the session's cookie goes with it. */
let session = false;
/** Ends the request that waits for changes. */
let watching = null;

/** Pause after a failure. */
const PAUSE_MS = 2000;
/** Pause after each reading, so that a busy firewall does not keep the page busy. */
const READ_PAUSE_MS = 500;

async function ask(path, options = {}) {
  const asking = token;
  const headers = session ? { "x-bartizan-session": token } : { authorization: "Bearer " + token };
  if (options.body) headers["content-type"] = "application/json";
  const answer = await fetch(path, { ...options, headers, cache: "no-store", credentials: session ? "same-origin" : "omit", redirect: "error" });
  const body = answer.headers.get("content-type")?.startsWith("application/json") ? await answer.json() : null;
  // Nothing that comes after signing out is shown.
  if (token !== asking) throw new Error("signed out");
  if (!answer.ok) {
    const said = body?.error;
    const error = new Error(said ? said.message + (said.hint ? " (" + said.hint + ")" : "") : "HTTP " + answer.status);
    error.status = answer.status;
    throw error;
  }
  return body;
}

function notAccepted() {
  return session ? "You are no longer signed in." : "This token is not accepted.";
}

function failed(error) {
  if (!token) return;
  if (error.status === 401) leave(notAccepted());
  else byId("trouble").textContent = "The firewall cannot be reached or refuses: " + error.message;
}

const calls = callsView(ask, failed);
const views = { calls, audit: auditView(ask, failed), servers: serversView(ask, failed) };

/** The id of the held call that the end of an address names; empty if it names none. */
function holdOf(fragment) {
  const hold = fragment.startsWith("hold=") ? fragment.slice("hold=".length) : "";
  return /^[0-9a-f]+$/.test(hold) ? hold : "";
}

/** Shows what the address names: a view, or a held call. */
function route() {
  if (!token) return;
  const wanted = location.hash.slice(1);
  const name = Object.hasOwn(views, wanted) ? wanted : "calls";
  for (const [other, view] of Object.entries(views)) {
    byId(`view-${other}`).hidden = other !== name;
    if (other === name) {
      byId(`to-${other}`).setAttribute("aria-current", "page");
      view.open();
    } else {
      byId(`to-${other}`).removeAttribute("aria-current");
      view.close();
    }
  }
  byId("trouble").textContent = "";
  calls.choose(holdOf(wanted));
}

/** Waits for changes; after each, what is shown is read again. */
async function watch() {
  let change = null;
  while (token) {
    watching = new AbortController();
    try {
      if (change !== null) await ask("approvals/changes?after=" + change, { signal: watching.signal });
      change = await calls.refresh();
      byId("trouble").textContent = "";
      await new Promise((resume) => setTimeout(resume, READ_PAUSE_MS));
    } catch (error) {
      if (!token) return;
      failed(error);
      await new Promise((resume) => setTimeout(resume, PAUSE_MS));
    }
  }
}

function leave(why) {
  token = "";
  session = false;
  watching?.abort();
  for (const view of Object.values(views)) view.clear();
  byId("console").hidden = true;
  for (const id of ["views", "who", "leave"]) byId(id).hidden = true;
  byId("trouble").textContent = "";
  byId("enter").hidden = false;
  byId("refused").textContent = why;
  byId("token").value = "";
  byId("token").focus();
}

/** Shows the console to whoever has just come in. */
async function enter() {
  byId("refused").textContent = "";
  try {
    await calls.refresh();
  } catch (error) {
    leave(error.status === 401 ? notAccepted() : error.message);
    return;
  }
  byId("token").value = "";
  byId("enter").hidden = true;
  byId("console").hidden = false;
  for (const id of ["views", "who", "leave"]) byId(id).hidden = false;
  byId("main").focus();
  route();
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
  "too-many": "Too many sign-ins are tried at the moment. Try again in a minute, or sign in with a token.",
  denied: "The issuer did not sign you in.",
  "no-group": "You are signed in there, but in no group that may approve.",
  refused: "The answer of the issuer is not accepted. The journal says why.",
};

/** What a sign-in brought back, after the `#` of the address, where nobody else sees it. */
function arrive() {
  const [told, more = ""] = location.hash.slice(1).split("&");
  const [what, value] = told.split("=");
  if (!value || (what !== "signed-in" && what !== "failed")) return;
  const hold = holdOf(more);
  history.replaceState(null, "", location.pathname + (hold ? "#hold=" + hold : ""));
  if (what === "signed-in") {
    token = value;
    session = true;
    enter();
  } else {
    byId("refused").textContent = Object.hasOwn(FAILURES, value) ? FAILURES[value] : FAILURES.refused;
  }
}

/** Offers to sign in at the issuer, if there is one. */
async function offer() {
  const answer = await fetch("console/options", { cache: "no-store", credentials: "omit", redirect: "error" });
  const issuer = (await answer.json()).sign_in;
  if (!issuer) return;
  show(byId("sign-in"), "Sign in with " + issuer.name);
  byId("sign-in").addEventListener("click", () => {
    // The held call that the address names comes back with whoever signs in.
    const hold = holdOf(location.hash.slice(1));
    location.assign(issuer.url + (hold ? "?hold=" + hold : ""));
  });
  byId("issuer").hidden = false;
}

byId("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  enter();
});
byId("leave").addEventListener("click", signOut);
byId("skip").addEventListener("click", (event) => {
  // The address names what is shown, so it stays.
  event.preventDefault();
  byId("main").focus();
});
addEventListener("hashchange", route);
arrive();
offer().catch(() => {});
