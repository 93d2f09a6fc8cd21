//! A backend with known token times: a measuring instrument.
