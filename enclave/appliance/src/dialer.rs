//! Outbound pipes through the host's dial service.

use std::{io, time::Duration};

use newton_http::{BoxFuture, BoxStream, DialClass, Dialer};
use newton_relay::{
    Connector,
    asynchronous::dial,
    dial::{Class, Target},
};

const TIMEOUT: Duration = Duration::from_secs(20);

/// A [`Dialer`] over the relay.
pub struct RelayDialer(pub Connector);

impl Dialer for RelayDialer {
    fn dial<'a>(
        &'a self,
        class: DialClass,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let class = match class {
                DialClass::Rpc => Class::Rpc,
                DialClass::Da => Class::Da,
                DialClass::Kms => Class::Kms,
                DialClass::Peer => Class::Peer,
                DialClass::Public => Class::Public,
            };
            let target = Target::new(class, host, port).map_err(io::Error::other)?;
            let stream = dial(&self.0, &target, TIMEOUT)
                .await
                .map_err(io::Error::other)?;
            Ok(Box::new(stream) as BoxStream)
        })
    }
}
