//! Fetching artifacts from data availability and verifying them.
