//! Calls of regorus's own built-in functions.

use std::sync::OnceLock;

use regorus::Value;
use regorus::unstable::{BUILTINS, Expr, Ref, Source, Span};

/// The syntax nodes that regorus's functions take with the values, to name a place in their errors.
struct CallSite {
    span: Span,
    params: Vec<Ref<Expr>>,
}

fn call_site() -> Option<&'static CallSite> {
    static CALL_SITE: OnceLock<Option<CallSite>> = OnceLock::new();
    CALL_SITE
        .get_or_init(|| {
            let source = Source::from_contents("built-in".to_owned(), "call".to_owned()).ok()?;
            let span = Span { source, line: 1, col: 1, start: 0, end: 4 };
            let param = || Ref::new(Expr::Null { span: span.clone(), value: Value::Null, eidx: 0 });
            let params = std::iter::repeat_with(param).take(8).collect();
            Some(CallSite { span, params })
        })
        .as_ref()
}

/// Calls regorus's function with this name.
///
/// # Errors
///
/// There is none, or it fails.
pub(super) fn native_call(name: &str, args: &[Value]) -> Result<Value, String> {
    let (function, _) = BUILTINS.get(name).ok_or("is not part of this build")?;
    let site = call_site().ok_or("has no call site")?;
    let params = site.params.get(..args.len()).ok_or("too many arguments")?;
    function(&site.span, params, args, true)
        .map_err(|error| super::problem::RegorusError::parse(&error.to_string()).text)
}
