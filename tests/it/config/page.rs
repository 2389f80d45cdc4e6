//! The tables of `docs/configuration.md` against the table of keys.

use std::collections::BTreeSet;

use bartizan::config::{DocumentedKey, documented_keys};

use super::bless;

const HEADER: &str = "| Key | Means | Range | Default |";

/// `page` with the rows of its tables as the program says them. A key keeps the place that it has;
/// a new one follows the key that is read before it; one that is gone goes.
fn rewritten(page: &str, keys: &[DocumentedKey]) -> String {
    let mut written: BTreeSet<&str> = page
        .lines()
        .filter_map(key_of)
        .filter(|key| keys.iter().any(|it| it.path == *key))
        .collect();
    let mut out = String::new();
    let mut inside = false;
    for line in page.lines() {
        inside = line == HEADER || (inside && line.starts_with('|'));
        let Some(path) = key_of(line).filter(|_| inside) else {
            out.push_str(line);
            out.push('\n');
            continue;
        };
        let mut from_here = keys.iter().skip_while(|key| key.path != path);
        let Some(key) = from_here.next() else { continue };
        out.push_str(&row(key));
        for new in from_here {
            if !written.insert(&new.path) {
                break;
            }
            out.push_str(&row(new));
        }
    }
    assert_eq!(written.len(), keys.len(), "no table has a key before the first new one");
    out
}

fn key_of(line: &str) -> Option<&str> {
    line.strip_prefix("| `")?.split('`').next()
}

fn row(key: &DocumentedKey) -> String {
    let range = match &key.range {
        Some((low, high)) => format!(" `{low}` to `{high}` "),
        None => " ".to_owned(),
    };
    assert!(!key.means.contains('|'), "{}", key.path);
    format!("| `{}` | {} |{range}| {} |\n", key.path, key.means, key.default)
}

#[test]
fn the_page_has_every_key_as_the_program_reads_it() {
    bless("docs/configuration.md", |page| rewritten(page, &documented_keys()));
}

#[test]
fn no_key_is_documented_twice() {
    let keys = documented_keys();
    let paths: BTreeSet<&str> = keys.iter().map(|key| key.path.as_str()).collect();
    assert_eq!(paths.len(), keys.len());
    assert!(keys.len() > 80, "{}", keys.len());
}

#[test]
fn rows_are_written_anew_where_they_stand() {
    let key = |path: &str, range: Option<(&str, &str)>| DocumentedKey {
        path: path.to_owned(),
        means: "Means.",
        range: range.map(|(low, high)| (low.to_owned(), high.to_owned())),
        default: "none".to_owned(),
    };
    let keys = [key("a", Some(("1", "2"))), key("new", None), key("b.c", None)];
    let page = format!(
        "# Title\n\n{HEADER}\n|---|---|---|---|\n| `b.c` | x | | |\n\ntext\n\n{HEADER}\n\
         |---|---|---|---|\n| `gone` | y | | |\n| `a` | z | | |\n\n| Other |\n|---|\n| `a` |\n"
    );
    let expected = format!(
        "# Title\n\n{HEADER}\n|---|---|---|---|\n| `b.c` | Means. | | none |\n\ntext\n\n{HEADER}\n\
         |---|---|---|---|\n| `a` | Means. | `1` to `2` | none |\n| `new` | Means. | | none |\n\n\
         | Other |\n|---|\n| `a` |\n"
    );
    assert_eq!(rewritten(&page, &keys), expected);
}
