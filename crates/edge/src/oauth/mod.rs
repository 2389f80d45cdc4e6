//! OAuth in the way: what a resource server of MCP shows to clients, where it stands behind us.
//!
//! In front of one resource ([`Forward`]) the client's token goes on, and what the server says
//! about itself is told with our address instead of its own: the `resource` of its metadata
//! (RFC 9728) and the URL of that metadata in its challenges. Nothing else is changed: no issuer,
//! no status. As a resource of our own ([`Terminate`]) we check the token, and it ends here.
//! Signatures are checked by `bartizan_jose`. Nothing here asks the network but [`keys`], for the
//! keys of issuers; `edge::http` does the rest.

pub mod challenge;
pub mod metadata;
mod address;
pub mod token;
pub mod keys;
mod terminate;

use std::borrow::Cow;
use std::sync::Mutex;

use ::http::Uri;

use bartizan_sync::lock;

pub use self::address::PublicUrl;
pub use self::terminate::{
    Bearer, CLAIM_BYTES_MAX, GROUPS_MAX, Issuer, NAME_BYTES_MAX, Naming, NoEntry, Terminate,
};

/// Where protected resources publish metadata about themselves; the path of the resource follows
/// (RFC 9728 §3.1).
pub const RESOURCE_METADATA: &str = "/.well-known/oauth-protected-resource";

/// Where MCP 2025-03-26 looks for the authorization server: at the origin of the MCP server
/// ("Authorization Server Discovery", "Fallbacks for Servers without Metadata Discovery"). Each
/// with the only method that it has.
pub const ORIGIN_ENDPOINTS: [(&str, ::http::Method); 4] = [
    ("/.well-known/oauth-authorization-server", ::http::Method::GET),
    ("/authorize", ::http::Method::GET),
    ("/token", ::http::Method::POST),
    ("/register", ::http::Method::POST),
];

/// Length of a path that a challenge may teach us, bytes.
const LEARNT_BYTES_MAX: usize = 2048;

/// What stands in a route's way to tokens.
#[derive(Debug)]
pub enum OAuth {
    /// We and the server are one resource to the authorization server; the token goes on.
    Forward(Forward),
    /// We are a resource of our own; the token ends here.
    Terminate(Terminate),
}

impl OAuth {
    /// Where clients reach the route, if that is written down.
    pub fn public(&self) -> Option<&PublicUrl> {
        match self {
            Self::Forward(forward) => forward.public.as_ref(),
            Self::Terminate(terminate) => Some(terminate.public()),
        }
    }
}

/// A server whose resource we front.
#[derive(Debug)]
pub struct Forward {
    /// The URL that clients dial. Absent on loopback alone: then it is made of the request's
    /// host, one of the loopback names, and the route's path.
    public: Option<PublicUrl>,
    /// What the server calls itself.
    theirs: Uri,
    /// The server's own path.
    path: Box<str>,
    /// Whether the endpoints of 2025-03-26 reach the server's origin.
    origin_endpoints: bool,
    /// The path of the metadata that a challenge named last.
    learnt: Mutex<Option<Box<str>>>,
}

impl Forward {
    /// In front of the server at `url`, which calls itself `theirs` in its metadata.
    pub fn new(
        public: Option<PublicUrl>,
        url: &Uri,
        theirs: Option<Uri>,
        origin_endpoints: bool,
    ) -> Self {
        Self {
            public,
            path: url.path().trim_end_matches('/').into(),
            theirs: theirs.unwrap_or_else(|| url.clone()),
            origin_endpoints,
            learnt: Mutex::new(None),
        }
    }

    /// Whether [`ORIGIN_ENDPOINTS`] reach the server's origin.
    pub fn has_origin_endpoints(&self) -> bool {
        self.origin_endpoints
    }

    /// Where the server may publish its metadata, below its own origin, likeliest first: what its
    /// last challenge named, then both well-known forms.
    pub fn sources(&self) -> Vec<Cow<'static, str>> {
        let mut sources = Vec::with_capacity(3);
        let learnt = lock(&self.learnt).clone();
        sources.extend(learnt.map(|path| Cow::Owned(path.into())));
        for path in
            [Cow::Owned(format!("{RESOURCE_METADATA}{}", self.path)), RESOURCE_METADATA.into()]
        {
            if !sources.contains(&path) {
                sources.push(path);
            }
        }
        sources
    }

    /// Remembers the path of the metadata that a challenge of the server named. Whatever host it
    /// named too, it is only ever asked for at the server's own origin.
    pub fn learn(&self, named: &str) {
        let Ok(named) = named.parse::<Uri>() else { return };
        let path = named.path_and_query().map_or("/", |path| path.as_str());
        if named.scheme().is_some() && path.len() <= LEARNT_BYTES_MAX {
            let mut learnt = lock(&self.learnt);
            *learnt = Some(path.into());
        }
    }

    /// What the server calls itself.
    pub fn theirs(&self) -> &Uri {
        &self.theirs
    }
}
