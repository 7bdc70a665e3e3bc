//! End-to-end tests of the real image.
