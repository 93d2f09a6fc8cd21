//! A demangled name in short: the path without generic arguments, closures' marks and the hash of a build.

use crate::place::module_of;

/// The function's path as a person says it. Understands what both of rustc's manglings become (`{{closure}}` and
/// `{closure#0}`), and leaves alone what is no Rust path. A bare name, which is what is known of an inlined function, stands in
/// the module that its `file` is.
pub(crate) fn shorten(name: &str, file: &str) -> String {
    let mut path = without_marks(&path_of(name.trim()));
    if !path.contains("::")
        && let Some(module) = module_of(file)
    {
        path = match &*path {
            // A closure, or the body of an async function.
            "" => module,
            path => format!("{module}::{path}"),
        };
    }
    let path = match path.strip_prefix("ring_core_") {
        // ring puts its version into the names of its assembly.
        Some(rest) => rest
            .find("__")
            .map(|at| format!("ring::{}", &rest[at + 2..])),
        None => None,
    }
    .unwrap_or(path);
    // The C library's functions have several names, most of them for itself.
    let mut path = &*path;
    while let Some(public) = ["__GI_", "__libc_", "__"]
        .iter()
        .find_map(|prefix| path.strip_prefix(prefix))
    {
        path = public;
    }
    let short = match path.strip_prefix("tokenlag_") {
        Some(ours) if ours.contains("::") => ours,
        _ => path,
    };
    match short {
        "" => name.to_owned(),
        short => short.to_owned(),
    }
}

/// The path without what is in angle brackets. `<Type as Trait>::method` is the type's, unless that is a parameter or a type
/// of the language, of which the trait says more.
fn path_of(name: &str) -> String {
    let Some(inside) = name.strip_prefix('<') else {
        return without_arguments(name);
    };
    let Some(end) = closing(inside) else {
        return name.to_owned();
    };
    let (inside, rest) = (&inside[..end], &inside[end + 1..]);
    let (of, as_of) = match top_level_as(inside) {
        Some(at) => (&inside[..at], Some(&inside[at + 4..])),
        None => (inside, None),
    };
    let of = bare(of);
    let path = match as_of {
        Some(as_of) if !of.contains("::") => path_of(bare(as_of)),
        _ => path_of(of),
    };
    format!("{path}{}", without_arguments(rest))
}

/// Without what says how a type is held.
fn bare(of: &str) -> &str {
    let mut of = of.trim();
    for prefix in ["&", "mut ", "dyn ", "*const ", "*mut ", "(", "["] {
        of = of.strip_prefix(prefix).unwrap_or(of).trim_start();
    }
    of
}

/// Where the bracket closes that was opened before `text`.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 1;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            // Not the arrow of a function's type.
            '>' if before != '-' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
        before = c;
    }
    None
}

/// Where ` as ` stands outside of brackets.
fn top_level_as(text: &str) -> Option<usize> {
    text.match_indices(" as ").map(|(at, _)| at).find(|at| {
        let before = &text[..*at];
        let arrows = before.matches("->").count();
        before.matches('<').count() + arrows == before.matches('>').count()
    })
}

fn without_arguments(path: &str) -> String {
    let mut kept = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(open) = rest.find('<') {
        kept.push_str(&rest[..open]);
        match closing(&rest[open + 1..]) {
            Some(end) => rest = &rest[open + 1 + end + 1..],
            // Cut off somewhere: it is shown as it is.
            None => return path.to_owned(),
        }
    }
    kept.push_str(rest);
    kept
}

/// Without closures, shims and numbered impls, and without the hash that older symbols end with.
fn without_marks(path: &str) -> String {
    let mut kept = String::with_capacity(path.len());
    let mut depth = 0usize;
    for c in path.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            c if depth == 0 => kept.push(c),
            _ => {}
        }
    }
    let names: Vec<&str> = kept
        .split("::")
        .filter(|name| !name.is_empty() && !is_hash(name))
        .collect();
    names.join("::")
}

fn is_hash(name: &str) -> bool {
    name.len() == 17 && name.starts_with('h') && name[1..].bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_become_paths() {
        for (name, short) in [
            ("tokenlag_channel::ws::read", "channel::ws::read"),
            (
                "tokenlag_channel::ws::read::{{closure}}::{{closure}}",
                "channel::ws::read",
            ),
            (
                "tokenlag_channel::ws::read::{closure#0}::{closure#1}",
                "channel::ws::read",
            ),
            (
                "core::ops::function::FnOnce::call_once{{vtable.shim}}",
                "core::ops::function::FnOnce::call_once",
            ),
            ("alloc::vec::Vec<T,A>::extend", "alloc::vec::Vec::extend"),
            (
                "tokio::task::local::LocalSet::run_until::<core::pin::Pin<F>>",
                "tokio::task::local::LocalSet::run_until",
            ),
            (
                "<tokenlag_channel::Socket as tokio::io::AsyncRead>::poll_read",
                "channel::Socket::poll_read",
            ),
            (
                "<&mut tokenlag_channel::Socket<S> as tokio::io::AsyncRead>::poll_read",
                "channel::Socket::poll_read",
            ),
            (
                "<F as core::future::future::Future>::poll",
                "core::future::future::Future::poll",
            ),
            (
                "<alloc::boxed::Box<F,A> as core::future::future::Future>::poll",
                "alloc::boxed::Box::poll",
            ),
            (
                "<core::option::Option<fn(u8) -> u8> as core::clone::Clone>::clone",
                "core::option::Option::clone",
            ),
            ("<[u8] as core::fmt::Debug>::fmt", "core::fmt::Debug::fmt"),
            (
                "<tokenlag_dialect::sse::Lines>::feed",
                "dialect::sse::Lines::feed",
            ),
            (
                "core::num::<impl core::convert::From<u32> for u64>::from",
                "core::num::from",
            ),
            (
                "rustls::conn::read::h0123456789abcdef",
                "rustls::conn::read",
            ),
            ("__libc_recv", "recv"),
            ("__send", "send"),
            ("__GI___libc_realloc", "realloc"),
            ("epoll_wait", "epoll_wait"),
            (
                "ring_core_0_17_14__aes_gcm_enc_update_vaes_avx2",
                "ring::aes_gcm_enc_update_vaes_avx2",
            ),
            ("tokenlag::main", "tokenlag::main"),
            ("broken<name", "broken<name"),
            ("<broken", "<broken"),
            ("Unknown", "Unknown"),
            ("{{closure}}", "{{closure}}"),
        ] {
            assert_eq!(shorten(name, ""), short, "{name}");
        }
    }

    #[test]
    fn inlined_functions_stand_in_their_files() {
        let ours = "/x/proxy/src/relay.rs";
        assert_eq!(shorten("step", ours), "proxy::relay::step");
        assert_eq!(
            shorten("{async_fn#0}<proxy::Outlet, alloc::alloc::Global>", ours),
            "proxy::relay"
        );
        assert_eq!(
            shorten("{impl#2}<T>", "/x/tokio-1.54.0/src/task/mod.rs"),
            "tokio::task"
        );
        assert_eq!(
            shorten("tokenlag_proxy::relay::Relay::step", ours),
            "proxy::relay::Relay::step"
        );
    }

    proptest! {
        #[test]
        fn any_name_has_a_short_one(name in "[a-z:<> {}&é\\->as]{0,60}") {
            prop_assert!(name.trim().is_empty() || !shorten(&name, "").is_empty());
        }
    }
}
