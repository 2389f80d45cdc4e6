//! OAuth for a server behind us, in one of two modes.
//!
//! With [`Forward`] the client's token is forwarded, and the server's statements about itself are
//! rewritten to name our address: the `resource` of its metadata (RFC 9728) and the metadata URL in
//! its challenges. Nothing else changes: no issuer, no status. With [`Terminate`] we are a resource
//! of our own: we verify the token and never forward it. `bartizan_jose` verifies signatures. Only
//! [`keys`] uses the network, to fetch the keys of issuers; `edge::http` calls this module.

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
    Bearer, CLAIM_BYTES_MAX, GROUPS_MAX, Issuer, NAME_BYTES_MAX, Naming, Terminate, TokenRefusal,
};

/// The well-known path of a resource's metadata; the path of the resource follows (RFC 9728 §3.1).
pub const RESOURCE_METADATA: &str = "/.well-known/oauth-protected-resource";

/// The OAuth endpoints that MCP 2025-03-26 expects at the origin of the MCP server ("Authorization
/// Server Discovery", "Fallbacks for Servers without Metadata Discovery"), each with its method.
pub const ORIGIN_ENDPOINTS: [(&str, ::http::Method); 4] = [
    ("/.well-known/oauth-authorization-server", ::http::Method::GET),
    ("/authorize", ::http::Method::GET),
    ("/token", ::http::Method::POST),
    ("/register", ::http::Method::POST),
];

/// Longest path that is taken from a challenge, bytes.
const LEARNT_BYTES_MAX: usize = 2048;

/// How a route handles access tokens.
#[derive(Debug)]
pub enum OAuth {
    /// The server verifies the token; to the authorization server, we and it are one resource.
    Forward(Forward),
    /// We verify the token and do not forward it.
    Terminate(Terminate),
}

impl OAuth {
    /// The configured public URL of the route, if any.
    pub fn public(&self) -> Option<&PublicUrl> {
        match self {
            Self::Forward(forward) => forward.public.as_ref(),
            Self::Terminate(terminate) => Some(terminate.public()),
        }
    }
}

/// A server that verifies tokens itself.
#[derive(Debug)]
pub struct Forward {
    /// The URL that clients connect to. `None` only on loopback: then it is made of the request's
    /// host, a loopback name, and the route's path.
    public: Option<PublicUrl>,
    /// The resource that the server names in its metadata.
    theirs: Uri,
    /// The server's own path.
    path: Box<str>,
    /// Whether requests for [`ORIGIN_ENDPOINTS`] are forwarded to the server's origin.
    origin_endpoints: bool,
    /// The metadata path that the server's last challenge named.
    learnt: Mutex<Option<Box<str>>>,
}

impl Forward {
    /// A server at `url` whose metadata names `theirs` as its resource; `url` itself if that is
    /// `None`.
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

    /// Whether requests for [`ORIGIN_ENDPOINTS`] are forwarded to the server's origin.
    pub fn has_origin_endpoints(&self) -> bool {
        self.origin_endpoints
    }

    /// Paths at the server's origin where its metadata may be, most likely first: the one that its
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

    /// Keeps the path of the metadata URL that a challenge named. Its host is ignored: metadata is
    /// fetched from the server's own origin only.
    pub fn learn(&self, named: &str) {
        let Ok(named) = named.parse::<Uri>() else { return };
        let path = named.path_and_query().map_or("/", |path| path.as_str());
        if named.scheme().is_some() && path.len() <= LEARNT_BYTES_MAX {
            let mut learnt = lock(&self.learnt);
            *learnt = Some(path.into());
        }
    }

    /// The resource that the server names in its metadata.
    pub fn theirs(&self) -> &Uri {
        &self.theirs
    }
}
