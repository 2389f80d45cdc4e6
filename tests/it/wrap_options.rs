//! What the options of `bartizan wrap` mean: the same as keys of a file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bartizan::config::{Config, Confine, Front, Inherit, PackRef, Surroundings, Upstream, Wrap};
use bartizan_gate::duty::pdp::Inputs;
use bartizan_gate::session::{Mode, RefusalForm};

const FILE: &str = "\
listen: 127.0.0.1:0
state: state-of-run
mode: observe
lock: bartizan.lock
policy: {paths: [policies]}
principal: {id: me}
limits: {in_flight: 9, children: 4}
log: {filter: error}
servers:
  notes:
    command: [notes, --stdio]
    env_inherit: [PATH]
    pack: ./notes.json
    environment: staging
    refusal: tool_result
  web: {url: 'https://h/mcp', headers: {k: '${env:UNSET}'}}
  asked: {url: 'https://h/mcp', oauth: {mode: forward}}
";

/// What `wrap` means where `/etc/b/b.yaml` holds [`FILE`].
fn meant(wrap: Wrap) -> Result<Config, String> {
    let surroundings = Surroundings {
        env: &|name| (name == "HOME").then(|| "/home/me".to_owned()),
        read: &|path, _| match path.to_str() {
            Some("/etc/b/b.yaml") => Ok(FILE.as_bytes().to_vec()),
            Some("/etc/b/one.yaml") => Ok(b"servers: {one: {command: one}}".to_vec()),
            Some("/etc/b/none.yaml") => Ok(b"mode: observe".to_vec()),
            Some("/etc/b/list.yaml") => Ok(b"servers: {one: {command: one}}\nlimits: 5".to_vec()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        },
        exists: &|_| true,
    };
    Config::wrap_in(wrap, &surroundings).map_err(|problems| problems.to_string())
}

fn of_file(name: &str) -> Wrap {
    Wrap { config: Some("/etc/b/b.yaml".into()), server: Some(name.to_owned()), ..Wrap::default() }
}

fn limits(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn options_mean_the_keys_of_a_file() {
    let wrap = Wrap {
        command: vec!["server".to_owned()],
        limits: limits(&[
            ("in_flight", "16"),
            ("answer_time", "10m"),
            ("frame_bytes", "8MiB"),
            ("keep_alive", "off"),
        ]),
        inputs: Some("values".to_owned()),
        refusal: Some("tool_result".to_owned()),
        lock: Some("my.lock".to_owned()),
        otlp: Some("https://collector:4318".to_owned()),
        log: Some("debug".to_owned()),
        ..Wrap::default()
    };
    let config = meant(wrap).unwrap();
    assert_eq!(config.limits.in_flight, 16);
    assert_eq!(config.limits.answer_time, Duration::from_mins(10));
    assert_eq!(config.limits.frame.document.bytes_max, 8 << 20);
    assert_eq!(config.limits.keep_alive, None);
    assert_eq!(config.audit.inputs, Inputs::Values);
    assert_eq!(config.servers[0].refusal, RefusalForm::ToolResult);
    assert_eq!(config.lock, Some(PathBuf::from("my.lock")));
    assert_eq!(config.otlp.unwrap().remote.url.host(), Some("collector"));
    assert_eq!(config.log.filter, "debug");
}

#[test]
fn wrong_values_are_told_by_their_options() {
    let wrap = Wrap {
        command: vec!["server".to_owned()],
        limits: limits(&[
            ("in_flight", "many"),
            ("answer_time", "10"),
            ("colour", "red"),
            ("children", "[1]"),
            ("drain", "5s"),
            ("drain", "6s"),
            ("streams", "*x"),
        ]),
        inputs: Some("all".to_owned()),
        refusal: Some("rude".to_owned()),
        otlp: Some("ftp://collector".to_owned()),
        log: Some("a=b=c".to_owned()),
        admin: Some("127.0.0.1:0".to_owned()),
        ..Wrap::default()
    };
    let problems = meant(wrap).unwrap_err();
    for expected in [
        "--limit in_flight: must be a whole number",
        "--limit answer_time: must be a length of time",
        "--limit colour: no such key",
        "--limit children: must be a whole number",
        "--limit drain: is given twice",
        "--limit streams: must be a whole number",
        "--inputs: must be `none`, `facts` or `values`",
        "--refusal: must be `error` or `tool_result`",
        "--otlp: is no http or https URL",
        "--log: is no filter",
        "--admin: does nothing without approvers",
    ] {
        assert!(problems.contains(expected), "no {expected}: {problems}");
    }
}

#[test]
fn a_server_of_a_file_is_as_the_file_says() {
    let config = meant(of_file("notes")).unwrap();
    assert_eq!(config.front, Front::Stdio { admin: None });
    assert_eq!((config.mode, &*config.principal.id), (Mode::Observe, "me"));
    assert_eq!((config.limits.in_flight, config.limits.children), (9, 4));
    assert_eq!(config.policy.paths, [PathBuf::from("/etc/b/policies")]);
    assert_eq!(config.lock, Some(PathBuf::from("/etc/b/bartizan.lock")));
    assert_eq!(config.log.filter, "error");
    let [server] = config.servers.as_slice() else { panic!("one server") };
    assert_eq!((server.name.as_str(), server.environment.as_deref()), ("notes", Some("staging")));
    assert_eq!(server.pack, Some(PackRef::File("/etc/b/./notes.json".into())));
    assert_eq!(server.refusal, RefusalForm::ToolResult);
    let Upstream::Child(child) = &server.upstream else { panic!("a child") };
    assert_eq!(child.inherit, Inherit::Only(vec!["PATH".to_owned()]));
    assert_eq!(child.confine, Confine::On);
    // One file, several processes: each has a journal of its own, and reaches none of the others.
    assert_eq!(config.state, Path::new("/home/me/.local/state/bartizan/notes"));
    assert!(config.numbers_state);
    for hidden in ["/etc/b/b.yaml", "/etc/b/state-of-run"] {
        assert!(config.own_files.contains(&PathBuf::from(hidden)), "{:?}", config.own_files);
    }
    assert!(config.sha256.is_some());
    // References of other servers are not followed.
    assert!(meant(of_file("web")).unwrap_err().contains("servers.web.headers.k (line 16)"));
}

#[test]
fn options_stand_in_place_of_the_files_keys() {
    let wrap = Wrap {
        policies: vec!["/p".to_owned(), "here".to_owned()],
        pack: Some("flag-service".to_owned()),
        state: Some("/s".to_owned()),
        principal: Some("you".to_owned()),
        refusal: Some("error".to_owned()),
        limits: limits(&[("in_flight", "16")]),
        log: Some("debug".to_owned()),
        ..of_file("notes")
    };
    let config = meant(wrap).unwrap();
    assert_eq!((config.limits.in_flight, config.limits.children), (16, 4));
    // Paths in options count from the working directory, not from the file's.
    let here = std::env::current_dir().unwrap().join("here");
    assert_eq!(config.policy.paths, [PathBuf::from("/p"), here]);
    assert_eq!(config.servers[0].pack, Some(PackRef::Embedded("flag-service".to_owned())));
    assert_eq!(config.servers[0].refusal, RefusalForm::Error);
    assert_eq!((config.state.as_path(), config.numbers_state), (Path::new("/s"), false));
    assert_eq!((&*config.principal.id, config.log.filter.as_str()), ("you", "debug"));
}

#[test]
fn which_server_of_a_file_must_be_clear() {
    let file = |path: &str| Wrap { config: Some(path.into()), ..Wrap::default() };
    assert_eq!(meant(file("/etc/b/one.yaml")).unwrap().servers[0].name, "one");
    for (wrap, expected) in [
        (
            file("/etc/b/b.yaml"),
            "--server: is missing, and the file has not one server: name one of `notes`, `web` or `asked`",
        ),
        (of_file("note"), "--server: no server is called `note`: did you mean `notes`?"),
        (file("/etc/b/none.yaml"), "servers: has no server"),
        (file("/etc/b/gone.yaml"), "it cannot be read"),
        (
            of_file("asked"),
            "servers.asked.oauth (line 17): a client on standard input brings no token",
        ),
        (
            Wrap { limits: limits(&[("drain", "1s")]), ..file("/etc/b/list.yaml") },
            "limits (line 2): must be keys with values",
        ),
    ] {
        let problems = meant(wrap).unwrap_err();
        assert!(problems.contains(expected), "no {expected}: {problems}");
    }
}
