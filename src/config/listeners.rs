//! `listen` and `admin`: where agents and operators come in.

use std::net::{Ipv4Addr, SocketAddr};

use super::Agents;
use super::form::{Form, flag, text};
use super::problem::wrong;
use super::section::Section;

const LISTEN: SocketAddr = loopback(7070);
const ADMIN: SocketAddr = loopback(7071);

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// Where clients come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    /// Over HTTP.
    Http {
        /// For agents (`listen`); beyond loopback only with `listen_anywhere: true`.
        listen: SocketAddr,
        /// For operators: health checks, and approvers (`admin`); beyond loopback only with
        /// `admin_anywhere: true`, and never the agents' address.
        admin: SocketAddr,
    },
    /// Over standard input and output, as `bartizan wrap` does; one server.
    Stdio {
        /// For approvers, where there is somebody who may answer; on the same terms.
        admin: Option<SocketAddr>,
    },
}

impl Front {
    /// Reads the addresses; `agents` says from where agents come.
    pub(super) fn read(s: &mut Section<'_>, agents: Agents) -> Option<Self> {
        let listen = s
            .key(
                "listen",
                address(LISTEN),
                "The address that agents call: an IP address and a port. Port 0 takes any free \
                 port, which the log names.",
            )
            .or_if_absent(LISTEN);
        let listen_anywhere = s
            .key(
                "listen_anywhere",
                flag(),
                "Lets `listen` be an address that other machines can reach.",
            )
            .or(false);
        let admin = s
            .key(
                "admin",
                address(ADMIN),
                "The address for operators: `/livez`, `/readyz` and `/metrics`, and for approvers. It must not be \
                 `listen`.",
            )
            .or_if_absent(ADMIN);
        let admin_anywhere = s
            .key(
                "admin_anywhere",
                flag(),
                "Lets `admin` be an address that other machines can reach.",
            )
            .or(false);
        for (key, address, anywhere) in
            [("listen", listen, listen_anywhere), ("admin", admin, admin_anywhere)]
        {
            if let Some(address) = address
                && !address.ip().to_canonical().is_loopback()
                && !anywhere
            {
                let what = format!("{address} can be reached from other machines");
                s.problem(key, what, format!("use 127.0.0.1, or add `{key}_anywhere: true`"));
            }
        }
        for (key, address, anywhere) in [
            ("listen_anywhere", listen, listen_anywhere),
            ("admin_anywhere", admin, admin_anywhere),
        ] {
            if anywhere && address.is_some_and(|it| it.ip().to_canonical().is_loopback()) {
                let what = "does nothing: only this machine can reach the address";
                s.idle(key, what, "remove it, or write the address that others shall reach");
            }
        }
        let (listen, admin) = (listen?, admin?);
        if agents == Agents::OverStdio {
            return Some(Self::Stdio { admin: s.has("approvals").then_some(admin) });
        }
        let same_ip = listen.ip() == admin.ip()
            || listen.ip().is_unspecified()
            || admin.ip().is_unspecified();
        if listen.port() == admin.port() && listen.port() != 0 && same_ip {
            let key = if s.has("listen") && !s.has("admin") { "listen" } else { "admin" };
            let what = format!("`admin` and `listen` are both {admin}");
            s.problem(key, what, "agents must not reach it: give it another port");
        }
        Some(Self::Http { listen, admin })
    }
}

fn address<'f>(example: SocketAddr) -> Form<'f, SocketAddr> {
    text()
        .checked(":[0-9]+$", move |text| match text.parse() {
            Ok(address) => Ok(address),
            Err(_) => wrong(
                format!("is no IP address with a port: `{}`", text.escape_debug()),
                format!("write it like `{example}` or `[::1]:{}`", example.port()),
            ),
        })
        .shown(SocketAddr::to_string)
}
