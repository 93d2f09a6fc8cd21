//! A connection of the dialling end, and HTTP/3 on it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use h3::client::{self, SendRequest};
use h3::error::{Code, StreamError};
use tokenlag_probes::Stamp;
use tokio::sync::Mutex;

use super::connection::{Connection, NotTaken, Opener, Under};
use super::track::Tracks;
use super::{ALPN, MAX_FIELDS};
use crate::quic::dialled::Dialled;
use crate::timers::Timers;
use crate::turns::Turn;
use crate::{ChannelError, Counters, Dial};

/// A connection; what it counted is kept when its last exchange is over.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) dialled: Arc<Dialled>,
    spoken: RefCell<Spoken>,
    /// For what its exchanges wait for.
    pub(super) timers: Timers,
    /// Held while HTTP/3 is begun again.
    again: Mutex<()>,
    /// The server takes no more exchanges on it.
    leaving: Cell<bool>,
    past: Rc<Cell<Counters>>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.past.set(self.past.get() + self.dialled.counters());
    }
}

/// HTTP/3 on a connection. Where early data is not taken it is begun anew, since its settings were among it.
#[derive(Clone)]
pub(super) struct Spoken {
    pub(super) sender: SendRequest<Opener, Bytes>,
    pub(super) tracks: Arc<Tracks>,
}

impl std::fmt::Debug for Spoken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spoken").finish_non_exhaustive()
    }
}

impl Live {
    /// Connects in its `turn`, and tells when the name was resolved. What the connection counts goes to `past` in the end.
    pub(super) async fn new(
        dial: &Dial,
        turn: Option<Turn>,
        past: &Rc<Cell<Counters>>,
    ) -> Result<(Self, Stamp), ChannelError> {
        let (dialled, resolved) = Dialled::new(dial, ALPN, "HTTP/3", turn).await?;
        let dialled = Arc::new(dialled);
        let spoken = speak(&dialled).await.map_err(|detail| ChannelError::Lost {
            address: dial.authority(),
            detail,
        })?;
        let live = Self {
            dialled,
            spoken: RefCell::new(spoken),
            timers: Timers::default(),
            again: Mutex::default(),
            leaving: Cell::new(false),
            past: Rc::clone(past),
        };
        Ok((live, resolved))
    }

    /// Whether it takes further exchanges.
    pub(super) fn is_open(&self) -> bool {
        self.dialled.is_open() && !self.leaving.get()
    }

    pub(super) fn spoken(&self) -> Spoken {
        self.spoken.borrow().clone()
    }

    /// Whether an exchange that was begun as `spoken` failed with the server's word that it did not work on it. Afterwards
    /// the connection is as it has to be for the next attempt.
    pub(super) async fn was_untouched(
        &self,
        spoken: &Spoken,
        error: &StreamError,
    ) -> Result<bool, String> {
        match error {
            StreamError::RemoteClosing { .. } => self.leaving.set(true),
            StreamError::RemoteTerminate { code, .. } if *code == Code::H3_REQUEST_REJECTED => {
                self.leaving.set(true);
            }
            StreamError::Undefined { 0: cause, .. } if cause.is::<NotTaken>() => {
                self.begin_again(spoken).await?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Begins HTTP/3 anew on the connection, where nobody did so since `spoken`.
    async fn begin_again(&self, spoken: &Spoken) -> Result<(), String> {
        let _turn = self.again.lock().await;
        if !Arc::ptr_eq(&self.spoken.borrow().tracks, &spoken.tracks) {
            return Ok(());
        }
        self.dialled.settled().await;
        spoken.tracks.outlive();
        let fresh = speak(&self.dialled).await?;
        self.spoken.replace(fresh);
        Ok(())
    }
}

/// Begins HTTP/3 on a connection: opens its control streams and sends the settings.
async fn speak(dialled: &Arc<Dialled>) -> Result<Spoken, String> {
    let tracks = Arc::new(Tracks::default());
    let under = Under {
        connection: dialled.connection.clone(),
        socket: Arc::clone(&dialled.socket),
        tracks: Arc::clone(&tracks),
        unwanted: Code::H3_REQUEST_CANCELLED,
    };
    let (mut connection, sender) = client::builder()
        .max_field_section_size(MAX_FIELDS)
        .send_grease(false)
        .build(Connection::new(under))
        .await
        .map_err(|error| error.to_string())?;
    let (driven, its_tracks) = (Arc::clone(dialled), Arc::clone(&tracks));
    tokio::spawn(async move {
        // The server's settings come once: they are for whoever speaks when it is known whether early data was taken.
        driven.settled().await;
        drop(driven);
        if !its_tracks.is_outlived() {
            connection.wait_idle().await;
        }
    });
    Ok(Spoken { sender, tracks })
}
