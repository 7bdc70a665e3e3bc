//! A development data-availability store with the EigenDA proxy's REST interface.
