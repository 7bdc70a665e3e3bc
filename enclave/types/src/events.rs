//! Decoded contract events in chain order.
