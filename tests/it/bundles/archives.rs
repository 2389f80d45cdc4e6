//! Directories and tarballs: what they hold, and what must not be in them.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;
use tar::{Builder, EntryType};

use super::make::{append, bundle, gzip, rules, tar, tarball};
use super::{prove, prove_bytes, refused};

const REGO: &str = "mcp/rules.rego";

#[tokio::test]
async fn a_tarball_answers_under_its_revision() {
    let ready = prove_bytes(&bundle("v1.2"), None).await.unwrap();
    let (called, digest) = ready.revision.split_once('@').unwrap();
    assert_eq!(called, "v1.2");
    assert!(digest.starts_with("sha256:"), "{digest}");

    // Different bundles have different revisions, even if their manifests name the same one.
    let other = tarball(&[
        (REGO, rules("other").as_bytes()),
        (".manifest", br#"{"revision":"v1.2","roots":["mcp"]}"#),
    ]);
    let other = prove_bytes(&other, None).await.unwrap();
    assert_ne!(other.revision, ready.revision);
    assert!(other.revision.starts_with("v1.2@sha256:"));

    let unnamed = prove_bytes(&tarball(&[(REGO, rules("a").as_bytes())]), None).await.unwrap();
    assert!(unnamed.revision.starts_with("sha256:"), "{}", unnamed.revision);
}

/// A directory and a tarball with the same files give the same bundle.
#[tokio::test]
async fn a_directory_is_the_same_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let version = folder.path().join("..2026_01");
    fs::create_dir_all(version.join("mcp")).unwrap();
    fs::write(version.join("mcp/rules.rego"), rules("v1")).unwrap();
    fs::write(version.join(".manifest"), r#"{"revision":"v1","roots":["mcp"]}"#).unwrap();
    fs::write(version.join("README"), "not policy").unwrap();
    // As a mounted volume looks.
    symlink("..2026_01", folder.path().join("..data")).unwrap();
    for name in ["mcp", ".manifest", "README"] {
        symlink(format!("..data/{name}"), folder.path().join(name)).unwrap();
    }
    let directory = prove(folder.path(), None).await.unwrap();
    let packed = prove_bytes(&bundle("v1"), None).await.unwrap();
    assert_eq!(directory.revision, packed.revision);
}

#[tokio::test]
async fn data_of_every_kind_is_read_where_it_lies() {
    let rules = "package mcp\n\npermit contains {\"code\": \"x\", \"message\": \"x\"} if \
        input.method == data.lists.methods[_]\n";
    let test = "package mcp_test\n\ntest_data if {\n\tdata.lists.methods == [\"ping\"]\n\t\
        data.deep.er.level == 2.5\n\tdata.top == true\n}\n";
    let files: [(&str, &[u8]); 5] = [
        ("./mcp/rules.rego", rules.as_bytes()),
        ("./mcp/rules_test.rego", test.as_bytes()),
        ("./data.json", br#"{"top":true}"#),
        ("./lists/data.yaml", b"methods: [ping]\n"),
        ("./deep/er/data.yml", b"level: 2.50\n"),
    ];
    let ready = prove_bytes(&tarball(&files), None).await.unwrap();
    assert!(ready.proof.tests.iter().any(|test| test.name.ends_with("test_data")), "{ready:?}");
}

#[tokio::test]
async fn nothing_lies_outside_of_the_roots() {
    let manifest = |roots: serde_json::Value| json!({ "roots": roots }).to_string();
    let with = |roots, name: &'static str, text: &'static str| {
        let manifest = manifest(roots);
        tarball(&[
            (REGO, rules("a").as_bytes()),
            (name, text.as_bytes()),
            (".manifest", manifest.as_bytes()),
        ])
    };
    for (roots, name, text) in [
        (json!(["mcp", "team"]), "team/data.json", r#"{"a":1}"#),
        (json!(["mcp", "team/a"]), "data.json", r#"{"team":{"a":{"b":1}}}"#),
        (json!([""]), "data.json", r#"{"x":1}"#),
        (json!(["/mcp/", "lib"]), "x.rego", "package lib.deep\n\nx := 1\n"),
    ] {
        let outcome = prove_bytes(&with(roots.clone(), name, text), None).await;
        assert!(outcome.is_ok(), "{roots} {name}: {outcome:?}");
    }
    for (roots, name, text, expected) in [
        (json!(["mcp"]), "team/data.json", r#"{"a":1}"#, "`data.team` lies outside"),
        (
            json!(["mcp", "team/a"]),
            "data.json",
            r#"{"team":{"b":1}}"#,
            "`data.team.b` lies outside",
        ),
        (json!(["mcp", "team/a"]), "data.json", r#"{"team":1}"#, "`data.team` lies outside"),
        (json!([]), "x.json", "{}", "`mcp` lies outside"),
        (json!(["mcp"]), "lib.rego", "package lib\n\nx := 1\n", "bundle/lib.rego: package `lib`"),
        (json!(["mcp"]), "mcp/x.rego", "package mcp_too\n\nx := 1\n", "package `mcp_too`"),
        (json!(["mcp"]), "x_test.rego", "package other\n\ntest_x := true\n", "package `other`"),
        (json!(["mcp", "mcp/a"]), "x.json", "{}", "overlaps"),
    ] {
        refused(prove_bytes(&with(roots, name, text), None).await, expected);
    }
}

#[tokio::test]
async fn manifests_that_mean_something_else_are_refused() {
    let long = format!(r#"{{"revision":"{}"}}"#, "x".repeat(257));
    for (manifest, expected) in [
        ("", "not a valid manifest"),
        ("[]", "not a valid manifest"),
        (r#"{"revision":1}"#, "not a valid manifest"),
        (r#"{"revision":"a","revision":"b"}"#, "not a valid manifest"),
        (r#"{"revision":"a\nb"}"#, "not printable"),
        (&long, "longer than 256"),
        (r#"{"rego_version":0}"#, "a version other than v1"),
        (r#"{"file_rego_versions":{"/mcp/*":0}}"#, "a version other than v1"),
        (r#"{"wasm":[{"entrypoint":"mcp/decision","module":"/policy.wasm"}]}"#, "WebAssembly"),
    ] {
        let files = [(REGO, rules("a")), (".manifest", manifest.to_owned())];
        let files = files.each_ref().map(|(name, text)| (*name, text.as_bytes()));
        refused(prove_bytes(&tarball(&files), None).await, expected);
    }
    let nested = tarball(&[(REGO, rules("a").as_bytes()), ("mcp/.manifest", b"{}")]);
    refused(prove_bytes(&nested, None).await, "not at the root");
    let delta = tarball(&[("patch.json", br#"{"data":[]}"#)]);
    refused(prove_bytes(&delta, None).await, "delta bundles are not supported");
}

#[tokio::test]
async fn names_that_lead_elsewhere_are_refused() {
    let policy = rules("a");
    for name in [
        "../rules.rego",
        "mcp/../rules.rego",
        "/../rules.rego",
        "//rules.rego",
        "mcp//rules.rego",
        "mcp/./rules.rego",
        "mcp\\rules.rego",
        "mcp/ru\nles.rego",
    ] {
        let packed = tarball(&[(REGO, policy.as_bytes()), (name, b"package x\n")]);
        refused(prove_bytes(&packed, None).await, &format!("`{}`", name.escape_debug()));
    }
    let deep = format!("{}x.rego", "d/".repeat(17));
    refused(prove_bytes(&tarball(&[(&deep, b"package x\n")]), None).await, "more directories");
    for twice in [REGO, "/mcp/rules.rego", "./mcp/rules.rego"] {
        let packed = tarball(&[(REGO, policy.as_bytes()), (twice, policy.as_bytes())]);
        refused(prove_bytes(&packed, None).await, "twice");
    }
}

#[tokio::test]
async fn only_plain_files_are_taken() {
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::Continuous,
        EntryType::GNUSparse,
        EntryType::new(b'Z'),
    ] {
        let mut builder = Builder::new(Vec::new());
        append(&mut builder, REGO, EntryType::Regular, rules("a").as_bytes());
        append(&mut builder, "mcp/more.rego", kind, b"");
        let packed = gzip(&builder.into_inner().unwrap());
        let outcome = prove_bytes(&packed, None).await;
        // A sparse file without its map is damaged before it is of a wrong kind.
        assert!(outcome.is_err(), "{kind:?}: {outcome:?}");
    }
    // Directories and the remarks of `git archive` do no harm.
    let mut builder = Builder::new(Vec::new());
    append(&mut builder, "mcp/", EntryType::Directory, b"");
    append(&mut builder, "pax_global_header", EntryType::XGlobalHeader, b"13 comment=a\n");
    append(&mut builder, REGO, EntryType::Regular, rules("a").as_bytes());
    prove_bytes(&gzip(&builder.into_inner().unwrap()), None).await.unwrap();
}

/// Wherever an archive is cut, nothing of it is taken.
#[tokio::test]
async fn an_archive_that_is_cut_off_is_refused() {
    let first = rules("a");
    let second = "package mcp\n\ndeny contains {\"code\": \"b\", \"message\": \"b\"} if false\n";
    let whole = tar(&[(REGO, first.as_bytes()), ("mcp/z.rego", second.as_bytes())]);
    let packed = gzip(&whole);
    prove_bytes(&packed, None).await.unwrap();
    for length in [0, 1, 10, 18, packed.len() / 2, packed.len() - 9, packed.len() - 1] {
        let outcome = prove_bytes(&packed[..length], None).await;
        assert!(outcome.is_err(), "{length} of {}: {outcome:?}", packed.len());
    }
    // Cut before it was packed, between two files and inside one.
    for length in (512..whole.len()).step_by(256) {
        refused(prove_bytes(&gzip(&whole[..length]), None).await, "");
    }
    let mut followed = packed.clone();
    followed.extend_from_slice(&packed);
    refused(prove_bytes(&followed, None).await, "data after the gzip stream");
    let mut flipped = packed.clone();
    let last = flipped.len() - 6;
    flipped[last] ^= 1;
    refused(prove_bytes(&flipped, None).await, "the gzip stream is incomplete or invalid");
    refused(prove_bytes(&whole, None).await, "the gzip stream is incomplete or invalid");
    refused(prove_bytes(&gzip(b"{}"), None).await, "the tar archive is incomplete or invalid");
}

#[tokio::test]
async fn what_unpacks_to_too_much_is_refused() {
    // 40 KiB that would be 40 MiB.
    let bomb = tarball(&[(REGO, &vec![b'#'; 40 << 20])]);
    assert!(bomb.len() < 100 << 10, "{}", bomb.len());
    refused(prove_bytes(&bomb, None).await, "unpack to more than");
    // Small enough as a whole, and one file too large.
    let noise: Vec<String> = (0_u64..2_300_000).map(|n| n.to_string()).collect();
    let noise = noise.join("\n");
    assert!(noise.len() > 16 << 20, "{}", noise.len());
    let packed = tarball(&[("noise.txt", noise.as_bytes())]);
    refused(prove_bytes(&packed, None).await, "larger than 16777216");
    let names: Vec<String> = (0..1025).map(|n| format!("f{n}.txt")).collect();
    let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    refused(prove_bytes(&tarball(&many), None).await, "more than 1024 files");
}

#[tokio::test]
async fn a_bundle_without_policy_is_refused() {
    for files in [&[][..], &[("data.json", &b"{}"[..])], &[("README.md", b"# Nothing")]] {
        refused(prove_bytes(&tarball(files), None).await, "no `.rego` file in the bundle");
    }
    let folder = tempfile::tempdir().unwrap();
    refused(prove(folder.path(), None).await, "no `.rego` file in the bundle");
    refused(prove(&folder.path().join("gone"), None).await, "cannot be opened");
    refused(prove_bytes(b"", None).await, "the archive is empty");
}
