//! Base URLs: `http` or `https`, a host, a port, and a path that may hold an API key.

use crate::HttpError;
use hyper::Uri;
use std::fmt;

/// Longest URL accepted, in bytes.
const MAX_URL: usize = 2048;

/// A parsed base URL. Its `Debug` and `Display` show `scheme://host:port` only.
#[derive(Clone, PartialEq, Eq)]
pub struct BaseUrl {
    tls: bool,
    host: String,
    port: u16,
    path: String,
}

impl BaseUrl {
    /// Parses `http[s]://host[:port][/path][?query]`.
    ///
    /// # Errors
    /// [`HttpError::InvalidUrl`] for another scheme, user information, a fragment, a missing host, port 0, or more
    /// than 2,048 bytes.
    pub fn parse(text: &str) -> Result<Self, HttpError> {
        if text.len() > MAX_URL {
            return Err(HttpError::InvalidUrl("longer than 2,048 bytes"));
        }
        if text.contains('#') {
            return Err(HttpError::InvalidUrl("fragments have no meaning here"));
        }
        let uri: Uri = text
            .parse()
            .map_err(|_| HttpError::InvalidUrl("not a URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(HttpError::InvalidUrl("scheme must be http or https")),
        };
        let authority = uri.authority().ok_or(HttpError::InvalidUrl("no host"))?;
        if authority.as_str().contains('@') {
            return Err(HttpError::InvalidUrl("user information is not supported"));
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        if host.is_empty() || host.len() > 253 {
            return Err(HttpError::InvalidUrl("host must have 1 to 253 bytes"));
        }
        // `Authority::port` is also `None` for a port out of range, so the text decides.
        let after_host = &authority.as_str()[authority.host().len()..];
        let port = match after_host.strip_prefix(':') {
            Some(port) => port
                .parse()
                .map_err(|_| HttpError::InvalidUrl("port must be 1 to 65535"))?,
            None if tls => 443,
            None => 80,
        };
        if port == 0 {
            return Err(HttpError::InvalidUrl("port 0"));
        }
        let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        Ok(Self {
            tls,
            host,
            port,
            path,
        })
    }

    /// Whether the scheme is `https`.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Host name or address, IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port; 80 or 443 where the URL names none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`, brackets around IPv6.
    pub fn peer(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Value of the `Host` header: the port is left out where it is the scheme's own.
    pub(crate) fn host_header(&self) -> String {
        if self.port == if self.tls { 443 } else { 80 } {
            if self.host.contains(':') {
                format!("[{}]", self.host)
            } else {
                self.host.clone()
            }
        } else {
            self.peer()
        }
    }

    /// The request target for `suffix`: the base path itself when empty, else base path + `suffix`.
    pub(crate) fn target(&self, suffix: &str) -> Result<Uri, HttpError> {
        let target = match suffix {
            "" => self.path.clone(),
            _ if !suffix.starts_with('/') => {
                return Err(HttpError::InvalidRequest("path must start with /"));
            }
            _ if self.path.contains('?') => {
                return Err(HttpError::InvalidRequest(
                    "the base URL has a query, no path can follow",
                ));
            }
            _ => format!("{}{suffix}", self.path.trim_end_matches('/')),
        };
        // No limit here but hyper's own (64 KiB): the path of a certificate is long.
        target
            .parse()
            .map_err(|_| HttpError::InvalidRequest("path does not parse"))
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}://{}",
            if self.tls { "https" } else { "http" },
            self.peer()
        )
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BaseUrl({self}/…)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn parses_what_operators_write() {
        for (text, tls, host, port, path) in [
            ("http://127.0.0.1:8545", false, "127.0.0.1", 8545, "/"),
            (
                "https://rpc.example/v3/KEY",
                true,
                "rpc.example",
                443,
                "/v3/KEY",
            ),
            ("http://[::1]:99/x?y=z", false, "::1", 99, "/x?y=z"),
        ] {
            let url = BaseUrl::parse(text).unwrap();
            assert_eq!(
                (url.is_tls(), url.host(), url.port(), url.path.as_str()),
                (tls, host, port, path)
            );
        }
        assert_eq!(
            BaseUrl::parse("http://[::1]:99").unwrap().peer(),
            "[::1]:99"
        );
        assert_eq!(BaseUrl::parse("https://a").unwrap().host_header(), "a");
        assert_eq!(
            BaseUrl::parse("https://a:8443").unwrap().host_header(),
            "a:8443"
        );
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "ftp://a",
            "a:80",
            "/x",
            "http://",
            "http://u:p@a",
            "http://a:0",
            "http://a:70000",
            "http://a/#f",
            "",
        ] {
            assert!(
                matches!(BaseUrl::parse(text), Err(HttpError::InvalidUrl(_))),
                "{text}"
            );
        }
        assert!(BaseUrl::parse(&format!("http://a/{}", "x".repeat(3000))).is_err());
    }

    #[test]
    fn joins_paths() {
        let url = BaseUrl::parse("http://a/base/").unwrap();
        assert_eq!(url.target("").unwrap(), "/base/");
        assert_eq!(url.target("/put?x=1").unwrap(), "/base/put?x=1");
        assert!(url.target("put").is_err());
        assert!(
            BaseUrl::parse("http://a/?k=v")
                .unwrap()
                .target("/put")
                .is_err()
        );
    }

    #[test]
    fn shows_no_key() {
        let url = BaseUrl::parse("https://rpc.example/v3/KEY?apikey=KEY").unwrap();
        assert!(!format!("{url} {url:?}").contains("KEY"));
    }
}
