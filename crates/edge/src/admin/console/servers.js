// The protected servers: packs, locks, and the policy that decides.

import { byId, fact, make } from "./text.js";

/** How often they are read again while they are shown. */
const PAUSE_MS = 10000;

const TRANSPORTS = { "http": "Streamable HTTP", "sse": "HTTP+SSE", "program": "a program, over standard input and output" };

/** What is to say of a lock. */
function locked(lock) {
  if (lock.state === "off") return "no lock file is configured (`bartizan lock` writes one); " + lock.listed + " tools listed since the start";
  if (lock.state === "unlocked") return "this server is not in the lock file";
  const wrong = lock.changed.length + lock.added.length;
  const seen = lock.tools + " tools locked, " + lock.listed + " listed since the start";
  return seen + (wrong === 0 && lock.more === 0 ? "" : "; some differ");
}

function names(lock, list) {
  return lock[list].join(", ");
}

function card(server) {
  const item = make("article", "server");
  const title = make("h3", "", server.name);
  title.id = "server-" + server.name;
  item.setAttribute("aria-labelledby", title.id);
  const facts = make("dl", "");
  fact(facts, "Path", server.path);
  fact(facts, "Reached by", TRANSPORTS[server.transport] ?? server.transport);
  fact(facts, "Environment", server.environment ?? "not pinned");
  fact(facts, "Labels", server.labels.map(([name, value]) => name + " " + value).join(", "));
  fact(facts, "Pack", server.pack ? server.pack.name + ", which knows " + server.pack.tools + " tools" : "none: its tools are not classified");
  fact(facts, "Lock", locked(server.lock));
  fact(facts, "Changed", names(server.lock, "changed"));
  fact(facts, "Not in the lock", names(server.lock, "added"));
  fact(facts, "Not listed", names(server.lock, "missing"));
  if (server.lock.more > 0) fact(facts, "And", server.lock.more + " more");
  item.append(title, facts);
  return item;
}

/** The view. `ask` asks the firewall; `failed` takes an error. */
export function serversView(ask, failed) {
  let timer = null;
  let drawn = "";

  async function read() {
    const found = await ask("servers");
    if (timer === null) return;
    const now = JSON.stringify(found);
    if (now === drawn) return;
    drawn = now;
    byId("policy").replaceChildren();
    fact(byId("policy"), "Policy revision", found.policy);
    fact(byId("policy"), "Mode", found.mode === "observe" ? "observe: decisions are recorded and not enforced" : "enforce");
    byId("server-list").replaceChildren(...found.servers.map(card));
  }

  function open() {
    if (timer !== null) return;
    timer = setInterval(() => read().catch(failed), PAUSE_MS);
    read().catch(failed);
  }

  function close() {
    clearInterval(timer);
    timer = null;
  }

  function clear() {
    close();
    drawn = "";
    byId("policy").replaceChildren();
    byId("server-list").replaceChildren();
  }

  return { open, close, clear };
}
