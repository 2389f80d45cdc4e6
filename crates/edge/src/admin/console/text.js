// Puts texts into the page. What agents and servers wrote becomes text (`textContent`), never markup,
// and characters that are not seen are written by their code points.

export const byId = (id) => document.getElementById(id);

/** Most lines of either text that are compared; the work grows with their product. */
const DIFF_LINES_MAX = 1000;
/** Most characters of either text that are compared. */
const DIFF_CHARS_MAX = 64 * 1024;
/** Characters of a long text that are drawn at once; further ones on demand. */
const PORTION_CHARS = 64 * 1024;
/** Marks of one place that are elements; what is not seen beyond them is written in brackets. */
const MARKS_MAX = 10000;
/** Deepest level that is indented. */
const DEPTH_MAX = 40;

// What `crates/gate/src/wire/unseen/table.rs` lists: default ignorable code points, controls, formats
// and blanks. Beyond it spaces that look like another one, and what has no character or no glyph.
const UNSEEN = /[\p{Default_Ignorable_Code_Point}\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Cs}\p{Zl}\p{Zp}\u00a0\u1680\u2000-\u200a\u202f\u205f\u2800\u3000\u{13441}\u{13442}\u{16fe4}\u{1d159}]/u;

/** Adds `text` to `place`; what is not seen gets a mark. Returns how many marks it made. */
export function put(place, text, keepLines) {
  let plain = "";
  let marks = 0;
  const room = MARKS_MAX - place.getElementsByClassName("unseen").length;
  const flush = () => {
    if (plain) place.append(document.createTextNode(plain));
    plain = "";
  };
  for (const character of text) {
    if (keepLines && character === "\n") {
      plain += character;
    } else if (UNSEEN.test(character)) {
      const code = "U+" + character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
      marks += 1;
      if (marks > room) {
        plain += "[" + code + "]";
        continue;
      }
      flush();
      const mark = document.createElement("span");
      mark.className = "unseen";
      mark.textContent = code;
      place.append(mark);
    } else {
      plain += character;
    }
  }
  flush();
  return marks;
}

/** Puts `text` into `place` in place of what it holds. */
export function show(place, text, keepLines) {
  place.replaceChildren();
  return put(place, text, keepLines);
}

/** What of `text` is drawn at once, and the rest: cut after a line if one ends far enough, and in no character. */
export function portion(text) {
  if (text.length <= PORTION_CHARS) return [text, ""];
  const line = text.lastIndexOf("\n", PORTION_CHARS - 1) + 1;
  let end = line > PORTION_CHARS / 2 ? line : PORTION_CHARS;
  if (/[\ud800-\udbff]/.test(text[end - 1])) end -= 1;
  return [text.slice(0, end), text.slice(end)];
}

/** An element with `text`. */
export function make(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) put(made, text);
  return made;
}

/** Adds a name and its value to a list of facts; nothing without a value. */
export function fact(place, name, text) {
  if (text === null || text === undefined || text === "") return;
  place.append(make("dt", "", name), make("dd", "", String(text)));
}

/** A time as people read it, in UTC as in the journal. */
export function moment(unixMs) {
  return new Date(unixMs).toISOString().replace("T", " ").slice(0, 19) + " UTC";
}

/** A length of time in its two largest units. */
export function span(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  const units = hours > 0 ? [[hours, "h"], [minutes % 60, "min"]] : minutes > 0 ? [[minutes, "min"], [seconds % 60, "s"]] : [[seconds, "s"]];
  return units.filter(([count], at) => at === 0 || count > 0).map(([count, unit]) => count + " " + unit).join(" ");
}

/** Breaks a JSON text into lines, the members of each object in the order of their names: what means the
 * same looks the same, in whatever order it was sent. Numbers stay as they were sent: nothing is rounded. */
export function pretty(json) {
  const tokens = json.match(/"(?:[^"\\]|\\.)*"|[[\]{},:]|[^\s"[\]{},:]+/gsu) || [];
  let at = 0;
  const read = () => {
    const open = tokens[at++];
    if (open !== "{" && open !== "[") {
      // Decoded and written anew: what an escape means is seen, and a line end stays an escape.
      return open.startsWith('"') ? JSON.stringify(JSON.parse(open)) : open;
    }
    const close = open === "{" ? "}" : "]";
    const members = [];
    while (tokens[at] !== close) {
      const name = open === "{" ? JSON.parse(tokens[at]) : null;
      if (name !== null) at += 2;
      members.push([name, read()]);
      if (tokens[at] === ",") at += 1;
    }
    at += 1;
    if (open === "{") members.sort(([one], [other]) => (one < other ? -1 : 1));
    return { open, close, members };
  };
  const lines = [];
  const write = (node, depth, before, after) => {
    const indent = "  ".repeat(Math.min(depth, DEPTH_MAX)) + before;
    if (typeof node === "string" || node.members.length === 0) {
      lines.push(indent + (typeof node === "string" ? node : node.open + node.close) + after);
      return;
    }
    lines.push(indent + node.open);
    node.members.forEach(([name, value], index) => {
      const comma = index + 1 < node.members.length ? "," : "";
      write(value, depth + 1, name === null ? "" : JSON.stringify(name) + ": ", comma);
    });
    lines.push("  ".repeat(Math.min(depth, DEPTH_MAX)) + node.close + after);
  };
  write(read(), 0, "", "");
  return lines;
}

/** Whether `lines` are too long to be compared. */
function isLong(lines) {
  return lines.length > DIFF_LINES_MAX || lines.reduce((sum, line) => sum + line.length, 0) > DIFF_CHARS_MAX;
}

/** The lines of both texts in order, each with " ", "-" or "+"; null where they are too long. */
export function difference(before, after) {
  if (isLong(before) || isLong(after)) return null;
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
