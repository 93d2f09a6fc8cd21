//! Why a link cannot be had.

use std::io;

/// Why a link cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Its parameters make no sense.
    #[error("the link '{given}' makes no sense: {reason}")]
    Spec {
        /// What was given: parameters, or a file.
        given: String,
        /// What is wrong with it, and what to write.
        reason: String,
    },
    /// This process may not make namespaces or devices.
    #[error(
        "an emulated link needs CAP_SYS_ADMIN and CAP_NET_ADMIN, for two network namespaces and a TUN device in each ({missing}); \
         run the command by sudo, or give them to the program: sudo setcap cap_sys_admin,cap_net_admin,cap_sys_nice+ep $(command -v tokenlag)"
    )]
    Rights {
        /// What was refused.
        missing: String,
    },
    /// The kernel does not do it.
    #[error("cannot {what}: {source}; {remedy}")]
    System {
        /// What was tried.
        what: String,
        /// The system's word.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// This way to emulate a link is not there.
    #[error("--link-via {via} cannot be had here: {reason}")]
    Via {
        /// The way.
        via: &'static str,
        /// What is missing, and what to do.
        reason: String,
    },
    /// A port cannot be forwarded.
    #[error("cannot forward '{given}': {reason}")]
    Forward {
        /// What was given.
        given: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl LinkError {
    pub(crate) fn system(
        what: impl Into<String>,
        remedy: &'static str,
    ) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Rights {
                missing: format!("cannot {what}: {source}"),
            },
            _ => Self::System {
                what,
                source,
                remedy,
            },
        }
    }
}
