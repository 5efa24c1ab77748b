//! A whole gateway on a fake clock.
