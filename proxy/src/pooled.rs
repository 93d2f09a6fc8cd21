//! A connection of the pool: what it carries is booked when its exchange is over, or with its end. What it does below its bytes
//! the kernel is asked for when somebody wants to know: with each exchange that would be a system call more.

use std::ops::{Deref, DerefMut};

use tokenlag_channel::http::Connection;

use crate::carried::{Carried, Total};

/// A connection to the upstream over HTTP/1.1.
#[derive(Debug)]
pub(crate) struct Pooled {
    connection: Connection,
    booked: Carried,
    total: Total,
}

impl Pooled {
    /// Books what `connection` carried so far, its making among it.
    pub(crate) fn new(connection: Connection, total: &Total) -> Self {
        let mut pooled = Self {
            connection,
            booked: Carried::default(),
            total: total.clone(),
        };
        pooled.book();
        pooled
    }

    /// Books what the socket did below its bytes.
    pub(crate) fn book_socket(&self) {
        self.connection.book();
    }

    /// Books what was carried up to now.
    pub(crate) fn book(&mut self) {
        let counters = self.connection.counted();
        self.total.book(&mut self.booked, counters);
    }
}

impl Deref for Pooled {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.book();
    }
}
