//! HTTP routes of a pack: a method and a path template, matched without rewriting the path.
//!
//! A tool that forwards a path passes it to a URL parser, which collapses dot segments, decodes
//! escapes and drops fragments. A path in which any of that could happen matches no route (threats
//! E11).

/// A method and a path template, such as `POST /v1/features/{id}/toggle`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The route as the pack writes it.
    pub text: Box<str>,
}

/// The text is not a valid [`Route`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoute;

impl Route {
    /// Parses `METHOD /path/{name}/…`: an upper-case method, one space, plain or variable segments.
    ///
    /// # Errors
    ///
    /// [`NoRoute`] for any other text.
    pub fn read(text: &str) -> Result<Self, NoRoute> {
        let (method, path) = text.split_once(' ').ok_or(NoRoute)?;
        let good = is_method(method)
            && path.strip_prefix('/').is_some_and(|path| {
                path.split('/').all(|segment| is_variable(segment) || is_plain(segment))
            });
        if good { Ok(Self { text: text.into() }) } else { Err(NoRoute) }
    }

    /// Whether `method` and `path` match this route. The path may lack its leading slash and may
    /// have a query; `{name}` matches one segment.
    pub fn matches(&self, method: &str, path: &str) -> bool {
        let Some((own_method, own_path)) = self.text.split_once(' ') else { return false };
        let Some(segments) = segments(path) else { return false };
        let own = own_path.strip_prefix('/').unwrap_or(own_path);
        method == own_method
            && own.split('/').count() == segments.clone().count()
            && own.split('/').zip(segments).all(|(own, segment)| is_variable(own) || own == segment)
    }
}

/// Returns the segments of a path that every URL parser splits the same way; `None` if one is not
/// plain.
fn segments(path: &str) -> Option<impl Iterator<Item = &str> + Clone> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    if query.bytes().any(|byte| !byte.is_ascii_graphic() || matches!(byte, b'#' | b'\\')) {
        return None;
    }
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    path.split('/').all(is_plain).then(|| path.split('/'))
}

/// Whether a segment has only unreserved characters (RFC 3986 §2.3) and a few others that no parser
/// changes, and is no dot segment.
fn is_plain(segment: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:@!$+,=".contains(&byte);
    !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(legal)
}

fn is_variable(segment: &str) -> bool {
    segment
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .is_some_and(|name| !name.is_empty() && !name.contains(['{', '}', '/']))
}

fn is_method(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_only_paths_that_nobody_rewrites() {
        let route = Route::read("POST /api/v1/features/{id}/toggle").unwrap();
        for path in [
            "/api/v1/features/dark-mode/toggle",
            "api/v1/features/dark-mode/toggle",
            "/api/v1/features/dark-mode/toggle/",
            "/api/v1/features/dark-mode/toggle?dry=1",
        ] {
            assert!(route.matches("POST", path), "{path}");
        }
        for path in [
            "/api/v1/features/a/../toggle",
            "/api/v1/features/../x/toggle",
            "/api/v1/features/%2e%2e/toggle",
            "//api/v1/features/x/toggle",
            "/api/v1/features//toggle",
            "/api/v1/features/x/toggle#y",
            "/api/v1/features/x/toggle?a#b",
            "/api/v1/features/x\\y/toggle",
            "/API/v1/features/x/toggle",
            "/api/v1/features/x y/toggle",
            "",
        ] {
            assert!(!route.matches("POST", path), "{path}");
        }
        assert!(!route.matches("post", "/api/v1/features/x/toggle"));
        for bad in ["POST", "post /x", "POST x", "POST /a//b", "POST /..", "POST /{}"] {
            assert_eq!(Route::read(bad), Err(NoRoute), "{bad}");
        }
    }
}
