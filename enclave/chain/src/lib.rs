//! The verified chain view: headers, events, storage.
