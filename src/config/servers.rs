//! `servers`: the protected servers, and how several stand beside each other.

use std::collections::HashMap;
use std::iter;

use ::http::Uri;

use super::form::{Names, by_name};
use super::listeners::Front;
use super::oauth::OAuthMode;
use super::problem::{Location, Wrong, wrong};
use super::section::{Section, section};
use super::server::{self, Paths, ServerConfig};

const SERVERS_HINT: &str = "name at least one server, with its `url` or its `command`";

/// Paths at the origin that `origin_endpoints` answers beside the well-known one.
const ENDPOINTS: [&str; 3] = ["/authorize", "/token", "/register"];

/// Reads all servers. `front` is known unless it had problems of its own.
pub(super) fn read(s: &mut Section<'_>, front: Option<Front>) -> Option<Vec<ServerConfig>> {
    let single = s.size_of("servers") == 1;
    let paths = Paths::default();
    let names =
        Names { placeholder: "<name>", pattern: Some("^[A-Za-z0-9_-]{1,63}$"), read: server_name };
    let one = section(|s| server::read(s, front, single, &paths));
    let servers = s
        .key("servers", by_name(&names, one).not_empty(SERVERS_HINT), "The protected servers.")
        .required(SERVERS_HINT)?;
    let servers: Vec<(ServerConfig, Location)> = servers.into_iter().map(|(_, it)| it).collect();
    side_by_side(s, &servers);
    Some(servers.into_iter().map(|(server, _)| server).collect())
}

fn server_name(name: &str) -> Result<String, Wrong> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || name.len() > 63 || !name.chars().all(plain) {
        return wrong("is no name for a server", "use 1 to 63 letters, digits, `-` and `_`");
    }
    Ok(name.to_owned())
}

/// No two servers may have their metadata or their origin endpoints at one place.
fn side_by_side(s: &Section<'_>, servers: &[(ServerConfig, Location)]) {
    let mut metadata: HashMap<String, &str> = HashMap::new();
    let mut endpoints: Option<&str> = None;
    for (server, location) in servers {
        let Some(oauth) = &server.oauth else { continue };
        let path = oauth.public_url.as_ref().and_then(|url| url.parse::<Uri>().ok());
        let path = path.map_or_else(|| server.path.clone(), |url| url.path().to_owned());
        let path = path.trim_end_matches('/').to_owned();
        if let Some(other) = metadata.get(&path) {
            let what = format!("its metadata is where that of `{other}` is");
            s.problem_at(location, what, "give each `public_url` a path of its own");
        }
        metadata.insert(path, &server.name);
        if !matches!(oauth.mode, OAuthMode::Forward { origin_endpoints: true, .. }) {
            continue;
        }
        if let Some(other) = endpoints.replace(&server.name) {
            let what = format!("`{other}` has `origin_endpoints` too");
            s.problem_at(location, what, "one origin has one authorization server");
        }
        for (other, location) in servers {
            for path in iter::once(&other.path).chain(&other.sse_path) {
                if ENDPOINTS.contains(&path.as_str()) {
                    let what = format!("`{path}` is an origin endpoint of `{}`", server.name);
                    s.problem_at(location, what, "give the server another path");
                }
            }
        }
    }
}
