//! A name for the server that a command starts, or that a URL reaches.
//!
//! Desktop clients start most servers through a launcher (`npx`, `uvx`, `docker run`, `python -m`),
//! so the first word would give all of them one name, and with it one state directory. The name is
//! the package, module, file or image that the launcher is told to start. It is made of the command
//! alone: a pack or a policy that is added later must not move the journal.

use std::path::{Component, Path};

use ::http::Uri;

/// Longest name, as for every server.
const NAME_CHARS_MAX: usize = 63;

/// Launchers inside one another that are looked through (`env … uv run python …`).
const NESTED_MAX: usize = 8;

/// Options of `npx`, `npm exec`, `pnpm dlx`, `yarn dlx` and `bunx` whose value is the next word.
const NPM_VALUES: &[&str] = &[
    "-p",
    "--package",
    "-c",
    "--call",
    "-w",
    "--workspace",
    "--cache",
    "--registry",
    "--prefix",
    "--userconfig",
    "--dir",
    "--filter",
];

/// The same of `uv`, `uvx` and `pipx`.
const UV_VALUES: &[&str] = &[
    "--from",
    "--with",
    "--with-editable",
    "--with-requirements",
    "-p",
    "--python",
    "-i",
    "--index",
    "--default-index",
    "--index-url",
    "--extra-index-url",
    "-f",
    "--find-links",
    "-C",
    "--constraints",
    "--overrides",
    "--env-file",
    "--directory",
    "--project",
    "--config-file",
    "--cache-dir",
    "--extra",
    "--group",
    "--spec",
    "--pip-args",
];

/// The same of runtimes that take a script.
const SCRIPT_VALUES: &[&str] = &[
    "-r",
    "--require",
    "--import",
    "--loader",
    "--experimental-loader",
    "-C",
    "--conditions",
    "--env-file",
    "--title",
    "-c",
    "--config",
    "--import-map",
    "--tsconfig",
    "--cwd",
    "-I",
    "-W",
    "-X",
];

/// Long options of `docker run` without a value; all others have one, in the next word or after `=`.
const CONTAINER_FLAGS: &[&str] = &[
    "--rm",
    "--init",
    "--detach",
    "--interactive",
    "--tty",
    "--privileged",
    "--read-only",
    "--publish-all",
    "--quiet",
    "--no-healthcheck",
    "--oom-kill-disable",
    "--sig-proxy",
    "--disable-content-trust",
    "--use-api-socket",
    "--replace",
];
/// The same of its short ones.
const CONTAINER_SHORT_FLAGS: &str = "itdPq";

/// Names of files and modules that say nothing of the server.
const PLAIN: &[&str] = &["index", "main", "__main__", "server", "app", "cli", "start", "stdio"];
/// Directories of a project that say nothing of it.
const INNER: &[&str] = &["dist", "build", "src", "lib", "bin", "out", "target", "release", "debug"];
/// Extensions that are no part of a name.
const EXTENSIONS: &[&str] = &[
    "py", "pyz", "js", "mjs", "cjs", "ts", "mts", "cts", "rb", "php", "pl", "sh", "jar", "exe",
    "cmd", "bat", "ps1",
];

/// A name for what `command` starts: 1 to 63 letters, digits, `-` and `_`. `None` if no such
/// character is in it.
pub(super) fn name_of_command(command: &[String]) -> Option<String> {
    allowed(&started(command, NESTED_MAX)?)
}

/// A name for the server at `url`: its host and its port. `None` if it has no host.
pub(super) fn name_of_url(url: &str) -> Option<String> {
    let url: Uri = url.parse().ok()?;
    let port = url.port_u16().map(|port| format!("-{port}")).unwrap_or_default();
    allowed(&format!("{}{port}", url.host()?))
}

/// What `command` starts, in the words of who wrote it.
fn started(command: &[String], nested_max: usize) -> Option<String> {
    let (first, rest) = command.split_first()?;
    let program = file_name(first);
    let inside = |rest: &[String]| match nested_max.checked_sub(1) {
        Some(left) => started(rest, left),
        None => None,
    };
    let found = match program.as_str() {
        "npx" | "pnpx" | "bunx" | "dnx" => package(rest, NPM_VALUES),
        "npm" | "pnpm" | "yarn" => after(rest, NPM_VALUES, &[&["exec"], &["x"], &["dlx"]])
            .and_then(|rest| package(rest, NPM_VALUES)),
        "uvx" => package(rest, UV_VALUES),
        "pipx" => after(rest, UV_VALUES, &[&["run"]]).and_then(|rest| package(rest, UV_VALUES)),
        "uv" => match after(rest, UV_VALUES, &[&["tool", "run"]]) {
            Some(rest) => package(rest, UV_VALUES),
            None => after(rest, UV_VALUES, &[&["run"]])
                .and_then(|rest| module(rest).or_else(|| inside(positional(rest, UV_VALUES)?))),
        },
        "bun" => match after(rest, NPM_VALUES, &[&["x"]]) {
            Some(rest) => package(rest, NPM_VALUES),
            None => script(after(rest, SCRIPT_VALUES, &[&["run"]]).unwrap_or(rest)),
        },
        "deno" | "mcp" | "fastmcp" => after(rest, SCRIPT_VALUES, &[&["run"]]).and_then(script),
        "node" | "nodejs" | "tsx" | "ts-node" | "ruby" | "php" | "perl" => script(rest),
        "docker" | "podman" | "nerdctl" => image(rest),
        "java" => rest.iter().skip_while(|word| *word != "-jar").nth(1).map(|jar| of_file(jar)),
        "env" => {
            let set = |word: &&String| word.contains('=') || word.starts_with('-');
            inside(rest.get(rest.iter().take_while(set).count()..)?)
        }
        python if python.starts_with("python") || python == "py" => {
            module(rest).or_else(|| script(rest))
        }
        _ => None,
    };
    found.or_else(|| Some(of_file(first)))
}

/// The words from the first on that is neither an option nor the value of one; `values` are the
/// options whose value is the next word.
fn positional<'a>(words: &'a [String], values: &[&str]) -> Option<&'a [String]> {
    let mut at = 0_usize;
    loop {
        let word = words.get(at)?;
        at = at.saturating_add(1);
        if word == "--" {
            return words.get(at..).filter(|rest| !rest.is_empty());
        }
        if !word.starts_with('-') {
            return words.get(at.saturating_sub(1)..);
        }
        if values.contains(&word.as_str()) {
            at = at.saturating_add(1);
        }
    }
}

/// What follows one of the `subcommands`, each one or two words.
fn after<'a>(
    words: &'a [String],
    values: &[&str],
    subcommands: &[&[&str]],
) -> Option<&'a [String]> {
    let words = positional(words, values)?;
    subcommands.iter().find_map(|subcommand| {
        let (head, rest) = words.split_at_checked(subcommand.len())?;
        (head == *subcommand).then_some(rest)
    })
}

/// The package, or the command of one, that a package runner starts.
fn package(words: &[String], values: &[&str]) -> Option<String> {
    let named = positional(words, values).and_then(<[String]>::first);
    let option = || {
        let place = words.iter().position(|word| matches!(word.as_str(), "-p" | "--package"))?;
        words.get(place.saturating_add(1))
    };
    named.or_else(option).map(|spec| of_package(spec))
}

/// `@scope/server-x@1.2` is `server-x`; so with `==`, extras, `npm:`, `git+https:` and `.git`.
fn of_package(spec: &str) -> String {
    let spec = spec.split('#').next().unwrap_or_default().trim_end_matches('/');
    let last = spec.rsplit(['/', ':']).next().unwrap_or_default();
    let end = last.char_indices().skip(1).find(|(_, c)| "@=<>~![; ".contains(*c));
    let name = end.and_then(|(end, _)| last.get(..end)).unwrap_or(last);
    let ends = [".git", ".tgz", ".tar.gz", ".whl"];
    ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name).to_owned()
}

/// The script that a runtime is given.
fn script(words: &[String]) -> Option<String> {
    let evaluates = |word: &String| matches!(word.as_str(), "-e" | "--eval" | "-p" | "--print");
    if words.iter().take_while(|word| word.starts_with('-')).any(evaluates) {
        return None;
    }
    let script = positional(words, SCRIPT_VALUES)?.first()?;
    let is_package = script.starts_with("npm:") || script.starts_with("jsr:");
    Some(if is_package { of_package(script) } else { of_file(script) })
}

/// The module after `-m`, if an option of a Python interpreter, or of `uv run`, names one.
fn module(words: &[String]) -> Option<String> {
    let mut words = words.iter();
    while let Some(word) = words.next().filter(|word| word.starts_with('-')) {
        let letters = word.trim_start_matches('-');
        let module = match (word.starts_with("--"), letters) {
            (true, "module") => words.next()?,
            (false, "W" | "X") => {
                words.next();
                continue;
            }
            (true, _) => {
                if UV_VALUES.contains(&word.as_str()) {
                    words.next();
                }
                continue;
            }
            // `-m`, and switches before it: `-um`.
            (false, letters) if letters.ends_with('m') => words.next()?,
            (false, _) => continue,
        };
        let parts = || module.rsplit('.');
        return parts()
            .find(|part| !PLAIN.contains(part))
            .or_else(|| parts().next())
            .map(str::to_owned);
    }
    None
}

/// The last part of the image that a container runtime runs, without tag and digest.
fn image(words: &[String]) -> Option<String> {
    let is_run = |word: &String| word == "run";
    let mut words = words.get(words.iter().position(is_run)?.saturating_add(1)..)?.iter();
    while let Some(word) = words.next() {
        let Some(option) = word.strip_prefix('-').filter(|option| !option.is_empty()) else {
            let last = word.rsplit('/').next()?;
            return last.split(['@', ':']).next().map(str::to_owned);
        };
        let takes_next = if option.starts_with('-') {
            !option.contains('=') && !CONTAINER_FLAGS.contains(&word.as_str())
        } else {
            // In `-ite` the last letter has a value in the next word; in `-eKEY` it is here.
            let value = option.char_indices().find(|(_, c)| !CONTAINER_SHORT_FLAGS.contains(*c));
            value.is_some_and(|(at, c)| option.len() == at.saturating_add(c.len_utf8()))
        };
        if takes_next {
            words.next();
        }
    }
    None
}

/// The name of a program or a script; that of its project where the file is called as many are.
fn of_file(path: &str) -> String {
    let own = file_name(path);
    if !PLAIN.contains(&own.as_str()) {
        return own;
    }
    let above = Path::new(path).parent().into_iter().flat_map(Path::components).rev();
    let above = above.filter_map(|part| match part {
        Component::Normal(name) => name.to_str(),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => {
            None
        }
    });
    let mut above = above.filter(|name| !INNER.contains(name) && !PLAIN.contains(name));
    above.next().map_or(own, str::to_owned)
}

/// The last part of `path`, without an extension of a program.
fn file_name(path: &str) -> String {
    let name = Path::new(path).file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    match name.rsplit_once('.') {
        Some((stem, extension)) if EXTENSIONS.contains(&extension) => stem.to_owned(),
        _ => name.into_owned(),
    }
}

/// `text` with `-` for whatever a name cannot have, one for several.
fn allowed(text: &str) -> Option<String> {
    let mut name = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || c == '_' {
            name.push(c);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
        if name.len() == NAME_CHARS_MAX {
            break;
        }
    }
    let name = name.trim_end_matches('-');
    (!name.is_empty()).then(|| name.to_owned())
}
