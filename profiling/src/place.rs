//! Where a function stands, as a path: what is inlined is known by its bare name and its file, where only line tables are kept.

/// The module that a source file holds: `tokio::task::coop` for `.../tokio-1.54.0/src/task/coop/mod.rs`. `None` where the file
/// is not laid out as Rust's are.
pub(crate) fn module_of(file: &str) -> Option<String> {
    let parts: Vec<&str> = file.split('/').filter(|part| !part.is_empty()).collect();
    let (package, modules) = match parts.iter().rposition(|part| *part == "src") {
        Some(at) if at > 0 => (package(parts[at - 1]), &parts[at + 1..]),
        // Where this program's own command stands.
        _ => {
            let at = parts.iter().rposition(|part| *part == "cli")?;
            ("tokenlag".to_owned(), &parts[at + 1..])
        }
    };
    let mut path = package;
    for module in modules {
        let module = module.strip_suffix(".rs").unwrap_or(module);
        if !matches!(module, "mod" | "lib" | "main") {
            path.push_str("::");
            path.push_str(module);
        }
    }
    Some(path)
}

/// The crate of a folder: registries put the version behind its name.
fn package(folder: &str) -> String {
    let version = folder.match_indices('-').find(|(at, _)| {
        let rest = &folder[at + 1..];
        rest.starts_with(|c: char| c.is_ascii_digit())
    });
    let name = version.map_or(folder, |(at, _)| &folder[..at]);
    let name = name.replace('-', "_");
    match name.strip_prefix("tokenlag_") {
        Some(ours) => ours.to_owned(),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_modules() {
        for (file, module) in [
            (
                "/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/tokio-1.54.0/src/task/coop/mod.rs",
                "tokio::task::coop",
            ),
            (
                "/x/registry/src/i/tokio-rustls-0.26.6/src/client.rs",
                "tokio_rustls::client",
            ),
            (
                "/x/registry/src/i/tokenlag-proxy-0.1.0/src/relay.rs",
                "proxy::relay",
            ),
            (
                "/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/core/src/future/poll_fn.rs",
                "core::future::poll_fn",
            ),
            (
                "/home/me/tokenlag/channel/src/ws/frames.rs",
                "channel::ws::frames",
            ),
            ("channel/src/lib.rs", "channel"),
            ("/home/me/tokenlag/cli/rig/mod.rs", "tokenlag::rig"),
        ] {
            assert_eq!(module_of(file).as_deref(), Some(module));
        }
        for file in ["", "src", "/build/glibc/nptl/pthread_create.c", "x.S"] {
            assert_eq!(module_of(file), None, "{file}");
        }
    }
}
